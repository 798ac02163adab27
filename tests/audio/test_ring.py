import itertools
import sys
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamtwl.audio.ring import RingBuffer

ACTIONS = st.lists(st.one_of(st.integers(0, 60), st.none()), max_size=40)


@given(capacity=st.integers(1, 40), channels=st.integers(1, 3), actions=ACTIONS)
def test_behaves_as_a_plain_list_that_forgets_its_oldest(capacity, channels, actions):
    """An action is a number of frames to write, or None: read."""
    ring = RingBuffer(capacity, 4 * channels)
    unread: list[int] = []  # first values of the frames that a reader has to get
    written = lost = got = 0
    for action in [*actions, None]:
        if action is None:
            position, frames = ring.read()
            values = np.frombuffer(frames, np.int32).reshape(-1, channels)
            assert position == written - len(unread)
            assert values[:, 0].tolist() == unread
            assert (values == values[:, :1]).all()
            got, unread = got + len(values), []
            assert ring.dropped == lost
        else:
            fresh = range(written, written + action)
            ring.write(np.repeat(np.array(fresh, np.int32), channels).tobytes())
            written += action
            unread += fresh
            lost += max(0, len(unread) - capacity)
            unread = unread[-capacity:]
    assert ring.dropped + got == written


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_takes_any_buffer(kind):
    ring = RingBuffer(8, 4)
    ring.write(kind(b"abcdefgh"))
    assert ring.read() == (0, b"abcdefgh")


def test_a_block_larger_than_the_ring_leaves_its_newest():
    ring = RingBuffer(4, 1)
    ring.write(b"ab")
    ring.write(b"cdefghijkl")
    assert ring.read() == (8, b"ijkl")
    assert ring.dropped == 8


def test_an_empty_ring_gives_nothing_at_its_position():
    ring = RingBuffer(4, 1)
    ring.write(b"abc")
    ring.read()
    assert ring.read() == (3, b"")


@pytest.mark.parametrize("capacity", [7, 1000, 100_000])
def test_threads_never_see_a_torn_frame(capacity):
    """Every frame holds its own position twice, so that overwritten or mixed ones show."""
    ring = RingBuffer(capacity, 16)
    sizes = np.random.default_rng(0).integers(0, 3 * min(capacity, 1000), 20_000)
    total = int(sizes.sum())
    over = threading.Event()

    def produce() -> None:
        position = 0
        for size in map(int, sizes):
            values = np.repeat(np.arange(position, position + size, dtype=np.int64), 2)
            ring.write(values.tobytes())
            position += size
        over.set()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # many switches inside write and read
    producer = threading.Thread(target=produce)
    try:
        producer.start()
        expected = got = 0
        while True:
            last = over.is_set()
            position, frames = ring.read()
            values = np.frombuffer(frames, np.int64).reshape(-1, 2)
            assert position >= expected
            assert (values == np.arange(position, position + len(values))[:, None]).all()
            got, expected = got + len(values), position + len(values)
            assert ring.dropped + got == expected
            if last:
                break
    finally:
        producer.join()
        sys.setswitchinterval(interval)
    assert expected == total
    assert got > 0


def at_line(line, action, method, *arguments):
    """Call a method and run `action` before one of its lines, as the other thread might."""
    passed = itertools.count()

    def trace(frame, event, _argument):
        if frame.f_code is not method.__func__.__code__:
            return None
        if event == "line" and next(passed) == line:
            action()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        return method(*arguments)
    finally:
        sys.settrace(before)


class Counted:
    """A ring whose frames hold their positions, and a count of what came out of it."""

    def __init__(self, capacity: int) -> None:
        self.ring = RingBuffer(capacity, 4)
        self.written = self.got = self.end = 0

    def fresh(self, count: int) -> bytes:
        start, self.written = self.written, self.written + count
        return np.arange(start, self.written, dtype=np.int32).tobytes()

    def check(self, position: int, frames: bytes) -> None:
        values = np.frombuffer(frames, np.int32)
        assert values.tolist() == list(range(position, position + len(values)))
        assert position >= self.end
        self.got, self.end = self.got + len(values), position + len(values)


SIZES = st.lists(st.integers(0, 20), min_size=1, max_size=10)
LINE = st.integers(0, 12)


@given(capacity=st.integers(1, 16), sizes=SIZES, line=LINE)
@settings(max_examples=300)
def test_a_read_at_any_moment_of_a_write_is_whole(capacity, sizes, line):
    counted = Counted(capacity)
    ring = counted.ring
    for size in sizes:
        ring.write(counted.fresh(capacity))  # something to be torn
        fresh = counted.fresh(size)
        at_line(line, lambda: counted.check(*ring.read()), ring.write, fresh)
    counted.check(*ring.read())
    assert counted.end == counted.written == ring.dropped + counted.got


@given(capacity=st.integers(1, 16), sizes=SIZES, during=st.integers(1, 20), line=LINE)
@settings(max_examples=300)
def test_writes_at_any_moment_of_a_read_tear_nothing(capacity, sizes, during, line):
    counted = Counted(capacity)
    ring = counted.ring
    for size in sizes:
        ring.write(counted.fresh(size))
        given = at_line(line, lambda: ring.write(counted.fresh(during)), ring.read)
        counted.check(*given)
    counted.check(*ring.read())
    assert counted.end == counted.written == ring.dropped + counted.got
