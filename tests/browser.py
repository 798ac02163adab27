"""Headless Chromium by the DevTools protocol over a pipe: no driver, no library."""

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from base64 import b64decode
from pathlib import Path
from typing import Any

OPTIONS = (
    "--headless=new --no-sandbox --disable-gpu --remote-debugging-pipe --hide-scrollbars "
    "--disable-background-networking --no-first-run --no-proxy-server"
)
TO, FROM = 3, 4  # Chromium's file descriptors for the protocol
PATIENCE_S = 120.0


def chromium() -> str | None:
    """Return the path of Chromium, None where there is none."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


class Browser:
    """One tab. What the console says at the level of an error, and what does not load, is kept."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        to_child, to_us = os.pipe(), os.pipe()
        self._out, self._in = to_child[1], to_us[0]

        def pipes() -> None:
            ours = os.dup(to_child[0]), os.dup(to_us[1])
            os.dup2(ours[0], TO)
            os.dup2(ours[1], FROM)

        self._process = subprocess.Popen(
            [
                str(chromium()),
                *OPTIONS.split(),
                f"--user-data-dir={self._folder.name}",
                "about:blank",
            ],
            preexec_fn=pipes,
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_child[0])
        os.close(to_us[1])
        self._received = b""
        self._number = 0
        self.problems: list[str] = []
        [target] = [
            each["targetId"]
            for each in self._call("Target.getTargets")["targetInfos"]
            if each["type"] == "page"
        ]
        attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol in the tab."""
        return self._call(method, self._session, **parameters)

    def look(
        self, width: int = 1280, height: int = 900, dark: bool = False, scale: float = 1
    ) -> None:
        """Set the size of the window, and the colours that its user prefers."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=scale, mobile=width < 600,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, address: str) -> None:
        """Go to an address."""
        self.call("Page.navigate", url=address)

    def run(self, script: str) -> Any:
        """Return the value of an expression in the page; raises what it throws."""
        got = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in got:
            raise RuntimeError(json.dumps(got["exceptionDetails"])[:2000])
        return got["result"].get("value")

    def wait(self, condition: str) -> None:
        """Wait until an expression is true."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            with contextlib.suppress(RuntimeError):  # the page is not there yet
                if self.run(f"Boolean({condition})"):
                    return
            time.sleep(0.05)
        text = self.run("document.body && document.body.innerText")
        raise AssertionError(f"{condition} never came: {text} {self.problems}")

    def picture(self, path: Path, whole: bool = False) -> None:
        """Write what the window shows, or with `whole` the page, as .png or .webp."""
        kind = path.suffix[1:]
        quality = {} if kind == "png" else {"quality": 82}
        got = self.call(
            "Page.captureScreenshot", format=kind, captureBeyondViewport=whole, **quality
        )
        path.write_bytes(b64decode(got["data"]))

    def close(self) -> None:
        """End it."""
        os.close(self._out)
        os.close(self._in)
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()

    def _call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        request = {"id": self._number, "method": method, "params": parameters}
        os.write(
            self._out,
            json.dumps(request | ({"sessionId": session} if session else {})).encode() + b"\0",
        )
        while True:
            message = self._next()
            if message.get("id") == self._number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]
            self._note(message)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._received:
            piece = os.read(self._in, 1 << 20)
            if not piece:
                raise RuntimeError("Chromium has ended")
            self._received += piece
        line, _, self._received = self._received.partition(b"\0")
        return json.loads(line)

    def _note(self, message: dict[str, Any]) -> None:
        content = message.get("params", {})
        if message["method"] == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(content["exceptionDetails"])[:600])
        elif message["method"] == "Runtime.consoleAPICalled" and content["type"] in (
            "error",
            "warning",
        ):
            self.problems.append(json.dumps(content["args"])[:600])
        elif message["method"] == "Log.entryAdded" and content["entry"]["level"] in (
            "error",
            "warning",
        ):
            self.problems.append(f"{content['entry']['text']} {content['entry'].get('url', '')}")
