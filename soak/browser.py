# SPDX-License-Identifier: MIT
"""A headless browser, remote controlled, for tests of pages and for pictures of them."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

from aemp_gevent.testing import wait_until
from soak.web import PATIENCE, WebConnection
from tests.support.networking import free_address


class Browser:
    """A headless one, remote controlled (the WebDriver protocol)."""

    def __init__(self, scratch: Path) -> None:
        self._address = address = free_address()
        self._session = ""
        self._log = (scratch / "browser").open("wb")
        port = address.rpartition(":")[2]
        command = ["chromedriver", f"--port={port}"]
        self._driver = subprocess.Popen(command, stdout=self._log, stderr=self._log, start_new_session=True)
        try:
            wait_until(self._is_ready, within=PATIENCE)
            # As root, which tests in containers are, it refuses its sandbox.
            arguments = ["--headless", "--no-sandbox", "--disable-dev-shm-usage", f"--user-data-dir={scratch}/profile"]
            wanted = {"browserName": "chrome", "goog:chromeOptions": {"args": arguments}}
            answer = self._call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        except BaseException:
            self.close()
            raise
        self._session = f"/session/{answer['sessionId']}"

    def _is_ready(self) -> bool:
        try:
            return bool(self._call("GET", "/status")["ready"])
        except OSError:
            return False

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        connection = WebConnection(self._address)
        try:
            connection.request(method, self._session + path, None if body is None else json.dumps(body))
            return json.loads(connection.getresponse().read())["value"]
        finally:
            connection.close()

    def open(self, url: str) -> str:
        """Open a page in another tab, and return the tab."""
        tab: str = self._call("POST", "/window/new", {"type": "tab"})["handle"]
        self._call("POST", "/window", {"handle": tab})
        self._call("POST", "/url", {"url": url})
        return tab

    def close_tab(self, tab: str) -> None:
        """Close a tab, and its connections."""
        self._call("POST", "/window", {"handle": tab})
        others = self._call("DELETE", "/window")
        self._call("POST", "/window", {"handle": others[0]})  # one must be in front

    def run(self, tab: str, script: str) -> Any:
        """Return what a script returns in a tab."""
        self._call("POST", "/window", {"handle": tab})
        return self._call("POST", "/execute/sync", {"script": script, "args": []})

    def type(self, tab: str, field: str, text: str) -> None:
        """Type into a field, as a person would."""
        self._call("POST", "/window", {"handle": tab})
        found = self._call("POST", "/element", {"using": "css selector", "value": f"#{field}"})
        (element,) = found.values()
        self._call("POST", f"/element/{element}/value", {"text": text})

    def press(self, tab: str, keys: str) -> None:
        """Press keys, one after the other, wherever the focus is."""
        self._call("POST", "/window", {"handle": tab})
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self._call("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def emulate(self, tab: str, width: int, height: int, scheme: str = "light") -> None:
        """Emulate a screen of this size, and a user who prefers this colour scheme."""
        self._call("POST", "/window", {"handle": tab})
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 640}
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        for command, params in (
            ("Emulation.setDeviceMetricsOverride", size),
            ("Emulation.setEmulatedMedia", media),
        ):
            self._call("POST", "/goog/cdp/execute", {"cmd": command, "params": params})

    def picture(self, tab: str) -> bytes:
        """Return a picture of a tab, as PNG."""
        self._call("POST", "/window", {"handle": tab})
        return base64.b64decode(self._call("GET", "/screenshot"))

    def close(self) -> None:
        """End the browser."""
        os.killpg(self._driver.pid, signal.SIGKILL)
        self._driver.wait()
        self._log.close()
