"""The ring buffer between PortAudio's callback and the thread that reads it."""


class RingBuffer:
    """Single-producer, single-consumer ring of audio frames that loses the oldest when full.

    Positions are absolute frame counts since the ring was made, so a loss leaves the timeline
    right. Neither side takes a lock: the producer announces what it is about to overwrite before
    it copies, and the consumer discards what was overwritten while it copied.
    """

    def __init__(self, capacity: int, frame_bytes: int) -> None:
        self.capacity = capacity  # frames
        self.frame_bytes = frame_bytes
        self.dropped = 0  # frames lost because they were not read in time
        self._memory = memoryview(bytearray(capacity * frame_bytes))
        self._reserved = 0  # frames that the producer has begun to write
        self._written = 0  # frames that are whole
        self._read = 0  # frames given to the consumer, or lost

    def write(self, frames: bytes | memoryview) -> None:
        """Producer: append interleaved frames; never blocks."""
        fresh = memoryview(frames).cast("B")
        end = self._written + len(fresh) // self.frame_bytes
        self._reserved = end
        fresh = fresh[-len(self._memory) :]  # a block larger than the ring
        at = (end * self.frame_bytes - len(fresh)) % len(self._memory)
        first = fresh[: len(self._memory) - at]
        self._memory[at : at + len(first)] = first
        self._memory[: len(fresh) - len(first)] = fresh[len(first) :]
        self._written = end

    def read(self) -> tuple[int, bytes]:
        """Consumer: return (position of the first frame, all frames not read yet)."""
        written = self._written
        start = max(self._read, written - self.capacity)
        size = (written - start) * self.frame_bytes
        at = start * self.frame_bytes % len(self._memory)
        first = bytes(self._memory[at : at + size])
        frames = first + bytes(self._memory[: size - len(first)])
        overwritten = min(max(0, self._reserved - self.capacity - start), written - start)
        start += overwritten
        self.dropped += start - self._read
        self._read = written
        return start, frames[overwritten * self.frame_bytes :]
