"""Signals that request the end."""

import contextlib
import signal
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[], int]]:
    """Yield a function that returns which of SIGINT, SIGTERM and SIGHUP was received, or 0.

    A second SIGINT ends the program at once.
    """
    received = 0

    def receive(number: int, _frame: object) -> None:
        nonlocal received
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received = number

    watched = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # else `nohup` wants it ignored
        watched.append(signal.SIGHUP)
    before = {number: signal.signal(number, receive) for number in watched}
    try:
        yield lambda: received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
