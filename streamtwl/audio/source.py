"""What a source of sound is to the rest of streamtwl: see `stages.py`."""

from streamtwl.stages import Chunk, Source, State

__all__ = ["BACK_OFF_S", "Chunk", "Source", "State"]

BACK_OFF_S = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)  # before a source that was lost is opened again
