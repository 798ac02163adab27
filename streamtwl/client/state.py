"""A subscriber's position, in a file: it continues from there when it is started again."""

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from streamtwl.errors import UNDECODABLE, UsageError


class Position(msgspec.Struct, forbid_unknown_fields=True):
    """The last message delivered of a topic in a session; -1: none yet."""

    session: str
    topic: str
    seq: int


def load(path: Path) -> dict[tuple[str, str], int]:
    """Return the positions in a file, none where there is no file; raises UsageError."""
    try:
        positions = msgspec.json.decode(path.read_bytes(), type=list[Position])
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UsageError(f"cannot read the state {path}: {error.strerror}") from None
    except UNDECODABLE:
        raise UsageError(
            f"{path} is not a subscriber's state: choose another, or delete it"
        ) from None
    return {(each.session, each.topic): each.seq for each in positions}


def save(path: Path, positions: Mapping[tuple[str, str], int]) -> None:
    """Write the positions, whole or not at all; raises OSError."""
    listed = [Position(session, topic, seq) for (session, topic), seq in positions.items()]
    new = path.with_name(f"{path.name}.new")
    with new.open("wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(listed), indent=1))
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
