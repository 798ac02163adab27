"""The sample rate of every stream."""

from streamtwl.stages import SAMPLE_RATE, Block

__all__ = ["SAMPLE_RATE", "Block"]
