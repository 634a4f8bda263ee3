"""Debian's chromium, driven over a pipe by its DevTools protocol: JSON messages with a NUL byte behind each."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, final

_LONGEST_WAIT = 60.0
_HAND_OVER = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3]]
os.dup2(ends[0], 3)
os.dup2(ends[1], 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""The browser reads commands from 3 and writes answers to 4."""
_FRAMES = """
new Promise((done) => {
  const wait = (frames) => requestAnimationFrame(() => (frames ? wait(frames - 1) : done()));
  wait(3);
})
"""
"""In the first frame the page is told, in the second one it answers, in the third one that is drawn."""
_FLAGS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--no-default-browser-check",
    "--no-first-run",
    "--hide-scrollbars",
    "--no-sandbox",  # which root cannot have
)


class BrowserFailed(Exception):
    """The browser is not there, ended, or refused a command."""


@final
class Browser:
    """One tab; a context manager. `folder` keeps its profile and its log.

    `requests` are the addresses of all that the page asked for, `problems` what its console says and what it throws.
    """

    def __init__(self, folder: Path) -> None:
        program = shutil.which("chromium")
        if program is None:
            raise BrowserFailed("chromium is not installed: tools/install-system-packages does it")
        folder.mkdir(parents=True, exist_ok=True)
        self.requests: list[str] = []
        self.problems: list[str] = []
        self._loaded = False
        self._number = 0
        self._buffer = b""
        theirs_in, self._to = os.pipe()
        self._from, theirs_out = os.pipe()
        self._log = folder / "chromium.log"
        command = [sys.executable, "-c", _HAND_OVER, str(theirs_in), str(theirs_out), program, *_FLAGS]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, f"--user-data-dir={folder / 'profile'}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(theirs_in, theirs_out),
                start_new_session=True,
            )
        os.close(theirs_in)
        os.close(theirs_out)
        try:
            tab = self._call("Target.createTarget", {"url": "about:blank"})["targetId"]
            attached = self._call("Target.attachToTarget", {"targetId": tab, "flatten": True})
            self._session: str | None = attached["sessionId"]
            for domain in ("Page", "Network", "Runtime", "Log"):
                self.call(f"{domain}.enable")
        except BaseException:  # also Ctrl-C: a browser must not be left behind
            self.end()
            raise

    def call(self, method: str, **parameters: Any) -> Any:
        """A command to the tab, see the protocol's reference. Raises BrowserFailed."""
        return self._call(method, parameters, session=self._session)

    def open(self, page: Path) -> None:
        """Show a file, and wait until it is loaded."""
        self._loaded = False
        self.requests.clear()
        self.problems.clear()
        self.call("Page.navigate", url=page.resolve().as_uri())
        deadline = time.monotonic() + _LONGEST_WAIT
        while not self._loaded:
            if time.monotonic() > deadline:
                raise BrowserFailed(f"{page} was not loaded in time")
            self._take(self._read())

    def value(self, expression: str) -> Any:
        """What a JavaScript expression is in the page: JSON, a promise is waited for. Raises BrowserFailed."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise BrowserFailed(f"{expression}: {found['exceptionDetails']}")
        return found["result"].get("value")

    def look(self, *, width: int, height: int, dark: bool = False) -> None:
        """The size of the window in CSS pixels, and what the user prefers. Returns once the page is drawn that way."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.value(_FRAMES)

    def screenshot(self, target: Path) -> None:
        """The whole page as PNG."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        target.write_bytes(base64.b64decode(shot["data"]))

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._to)
        os.close(self._from)

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def _call(self, method: str, parameters: Mapping[str, Any], *, session: str | None = None) -> Any:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise BrowserFailed(f"{method}: {answer['error']}")
                return answer["result"]
            self._take(answer)

    def _take(self, event: Mapping[str, Any]) -> None:
        method, told = event.get("method"), event.get("params", {})
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])
        elif method in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
            self.problems.append(json.dumps(told))
        elif method == "Page.javascriptDialogOpening":
            self.problems.append(f"dialog: {told['message']}")
            raise BrowserFailed(f"the page opened a dialog: {told['message']}")

    def _read(self) -> dict[str, Any]:
        """The next message. Raises BrowserFailed if the browser has ended, or is silent for too long."""
        while b"\0" not in self._buffer:
            if not select.select([self._from], [], [], _LONGEST_WAIT)[0]:
                raise BrowserFailed(f"chromium is silent:\n{self._log.read_text(errors='replace')}")
            piece = os.read(self._from, 1 << 16)
            if not piece:
                raise BrowserFailed(f"chromium ended:\n{self._log.read_text(errors='replace')}")
            self._buffer += piece
        message, _, self._buffer = self._buffer.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found
