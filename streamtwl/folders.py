"""The four folders of a user that streamtwl writes to: cache, state, config and data."""

import os
from collections.abc import Callable
from pathlib import Path

import platformdirs

from streamtwl.errors import UsageError


def cache() -> Path:
    """Return the folder that models are kept in, $STREAMTWL_CACHE; raises UsageError."""
    return _folder("STREAMTWL_CACHE", platformdirs.user_cache_dir)


def state() -> Path:
    """Return the folder that the journal is in, $STREAMTWL_STATE; raises UsageError."""
    return _folder("STREAMTWL_STATE", platformdirs.user_state_dir)


def config() -> Path:
    """Return the folder that keys are in, $STREAMTWL_CONFIG; raises UsageError."""
    return _folder("STREAMTWL_CONFIG", platformdirs.user_config_dir)


def data() -> Path:
    """Return the folder that taught sounds are in, $STREAMTWL_DATA; raises UsageError."""
    return _folder("STREAMTWL_DATA", platformdirs.user_data_dir)


def expand(path: str | Path) -> Path:
    """Return a path with a leading ~ replaced by the home folder; raises UsageError."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UsageError(
            f"{path}: there is no such home folder: write the whole path instead of ~"
        ) from None


def _folder(variable: str, users_own: Callable[[str], str]) -> Path:
    """Return the folder that a variable names, else the user's default, even if it does not
    exist."""
    if named := os.environ.get(variable):
        return expand(named)
    try:
        folder = Path(users_own("streamtwl"))
    except RuntimeError:
        folder = Path("~")
    if not folder.is_absolute():  # platformdirs before 4.10 leaves the ~ there
        raise UsageError(
            f"user {os.getuid()} has no home folder and no HOME: set {variable}=FOLDER"
        )
    return folder
