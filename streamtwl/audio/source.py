"""What a source of sound is to the rest of streamtwl: see `stages.py`."""

from streamtwl.stages import Chunk, Source, State

__all__ = ["Chunk", "Source", "State"]
