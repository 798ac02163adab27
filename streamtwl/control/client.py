"""The commands' side: requests to every running listener of this user."""

import contextlib
import socket
import time
from pathlib import Path

import msgspec

from streamtwl.control import messages
from streamtwl.control.messages import MAX_MEL_FRAMES, Answer, Last, MelFrames, Reload, Request
from streamtwl.errors import UNDECODABLE, ControlError

ANSWER_S = 60.0  # a reload may have recordings to score
AGAIN_S = 0.05


def listeners() -> list[Path]:
    """Return the sockets that there are, the newest first."""
    found = []
    for path in messages.folder().glob("*.sock"):
        with contextlib.suppress(OSError):
            found.append((path.stat().st_mtime, path))
    return [path for _, path in sorted(found, reverse=True)]


def reload() -> tuple[int, list[str]]:
    """Have all listeners take in what is taught; return how many did, and why others did not."""
    done, problems = 0, []
    for path in listeners():
        try:
            _request(path, Reload())
            done += 1
        except ConnectionError:
            continue  # it has ended
        except ControlError as error:
            problems.append(str(error))
    return done, problems


def last(seconds: float, source: str = "") -> Answer:
    """Return the newest sound of the listener that began last; raises ControlError."""
    for path in listeners():
        try:
            return _request(path, Last(seconds, source))
        except ConnectionError:
            continue
    raise ControlError(
        "no streamtwl of yours listens, or it has --no-control: start `streamtwl listen`, or "
        "record with --record"
    )


def mel(source: str, since: int, most: int = MAX_MEL_FRAMES, session: str = "") -> Answer:
    """Return a source's newest log-mel frames, of the listener that has it; raises ControlError."""
    problem = "no streamtwl of yours listens here, or it has --no-control"
    for path in listeners():
        try:
            return _request(path, MelFrames(source, since, most, session))
        except ConnectionError:
            continue
        except ControlError as error:  # another one may have it
            problem = str(error)
    raise ControlError(problem)


def _request(path: Path, request: Request) -> Answer:
    """Return a listener's answer; raises ConnectionError where it is gone, ControlError."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            _connect(connection, path)
            if not messages.is_own(connection):
                raise ControlError(f"{path} is another user's: remove it")
            connection.sendall(msgspec.json.encode(request) + b"\n")
            line = messages.read_line(connection, messages.ANSWER_BYTES, ANSWER_S)
    except (ConnectionError, FileNotFoundError) as error:
        raise ConnectionError(str(error)) from None
    except TimeoutError:
        raise ControlError(f"the listener at {path} did not answer in {ANSWER_S:g} s") from None
    except OSError as error:
        raise ControlError(f"{path}: {error.strerror or error}") from None
    if not line:
        raise ConnectionError("it ended")
    try:
        answer = msgspec.json.decode(line, type=Answer)
    except UNDECODABLE as error:
        raise ControlError(f"the listener at {path} answers nonsense ({error})") from None
    if answer.error is not None:
        raise ControlError(answer.error)
    return answer


def _connect(connection: socket.socket, path: Path) -> None:
    """Connect, waiting for a place where many others wait; raises OSError."""
    until = time.monotonic() + ANSWER_S
    connection.settimeout(ANSWER_S)
    while True:
        try:
            connection.connect(str(path))
        except BlockingIOError:  # of a Unix socket: all places to wait in are taken
            if time.monotonic() > until:
                raise TimeoutError from None
            time.sleep(AGAIN_S)
        else:
            return
