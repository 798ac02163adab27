"""Take pictures of the web page, from a real run of the demo's sounds, in headless Chromium.

    .venv/bin/python tools/web_screenshot.py docs            # web.webp, web-phone.webp
    .venv/bin/python tools/web_screenshot.py pictures --all  # every view, size and colour

It listens to the demo, again and again, in real time, with a journal of its own.
"""

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import wave
from pathlib import Path

import numpy as np

from streamtwl.audio.demo import scene
from streamtwl.stages import SAMPLE_RATE

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from browser import Browser

ROUNDS = 5
WIDE, PHONE = (1200, 1130), (390, 844)
START_S = 60.0


def main() -> None:
    """Listen, and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where the pictures go")
    parser.add_argument(
        "--all", action="store_true", help="every view, wide and phone, both colours"
    )
    parser.add_argument("--seconds", type=float, default=45.0, help="of sound before the pictures")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        sound, port = _sound(Path(folder) / "kitchen.wav"), _free_port()
        listening = _listen(sound, port, folder)
        try:
            browser = Browser()
            address = f"http://127.0.0.1:{port}/"
            _wait_for(address)
            key = (Path(folder) / "services" / "web-key").read_text().strip()
            browser.open(f"{address}?key={key}")
            _pictures(browser, address, options)
            browser.close()
            if browser.problems:
                sys.exit("\n".join(browser.problems))
        finally:
            listening.terminate()
            listening.wait()


def _pictures(browser: Browser, address: str, options: argparse.Namespace) -> None:
    browser.look(*WIDE)
    browser.open(address)
    browser.wait("document.querySelectorAll('.events tbody tr').length >= 3")
    time.sleep(options.seconds)
    if not options.all:
        browser.picture(options.folder / "web.webp")
        browser.look(*PHONE, dark=True, scale=1.5)
        time.sleep(1.0)
        browser.picture(options.folder / "web-phone.webp")
        return
    event = browser.run("document.querySelector('.events .label a').getAttribute('href')")
    for view, path in (
        ("live", ""), ("history", "history"), ("event", event[1:]), ("health", "health"),
        ("settings", "settings"),
    ):  # fmt: skip
        if path:
            browser.open(f"{address}{path}")
            browser.wait("document.querySelector('main[data-ready]')")
        if view == "settings":
            browser.run("document.querySelector('button.row').click()")
            browser.wait("document.querySelector('.trial output')")
        for dark in (False, True):
            for name, size, scale in (("wide", WIDE, 1), ("phone", PHONE, 2)):
                browser.look(*size, dark=dark, scale=scale)
                time.sleep(0.8)
                colours = "dark" if dark else "light"
                browser.picture(options.folder / f"{view}-{name}-{colours}.png")


def _sound(path: Path) -> Path:
    samples = (np.tile(scene(), ROUNDS) * 32767).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(samples.tobytes())
    return path


def _listen(sound: Path, port: int, folder: str) -> subprocess.Popen:
    arguments = ["listen", str(sound), "--labels", "everyday", "--quiet"]
    arguments += ["--bind", "tcp://127.0.0.1:*", "--replay-bind", "tcp://127.0.0.1:*"]
    return subprocess.Popen(
        [sys.executable, "-m", "streamtwl", *arguments, "--web", f"127.0.0.1:{port}"],
        env=os.environ | {"STREAMTWL_STATE": folder, "STREAMTWL_DATA": folder},
    )


def _wait_for(address: str) -> None:
    until = time.monotonic() + START_S
    while True:
        try:
            urllib.request.urlopen(address).close()
            return
        except urllib.error.URLError:
            if time.monotonic() > until:
                sys.exit(f"{address} does not answer")
            time.sleep(0.2)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


if __name__ == "__main__":
    main()
