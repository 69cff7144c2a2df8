# SPDX-License-Identifier: MIT
"""The shop in a browser: a shelf is crashed by its button, and a backend is killed while somebody buys."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from aemp_gevent.testing import wait_until
from soak.browser import Browser
from tests.support import preloaded
from tests.support.networking import free_address

pytestmark = pytest.mark.slow

SHOP = Path(__file__).parents[2] / "examples" / "shop"
PATIENCE = 60.0


class Shop:
    """The shop's three processes."""

    def __init__(self, stack: ExitStack, scratch: Path) -> None:
        self._stack = stack
        self._env = {**os.environ, "AEMP_SECRET": "test", "AEMP_CONFIG": "/dev/null", "AEMP_MONITOR_TIMEOUT": "5"}
        self._env["PYTHONPATH"] = os.pathsep.join([str(SHOP), str(SHOP.parents[1])])
        self.front = free_address()
        self.http = free_address()
        self.log = scratch / "log"
        self.backends = {name: self._backend(name, scratch) for name in (free_address(), free_address())}
        self._run(str(SHOP / "web.py"), self.http.rpartition(":")[2], self.front)

    def _run(self, *args: str) -> subprocess.Popen[str]:
        with self.log.open("a") as log:
            process = preloaded.Popen([sys.executable, *args], env=self._env, stdout=log, stderr=log, text=True)
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        return process

    def _backend(self, name: str, scratch: Path) -> subprocess.Popen[str]:
        return self._run(
            "-m", "aemp_gevent.cli", "run", "--nodeid", name, "--seed", self.front, "--service", "shelf.offer"
        )


class Page:
    """The shop's page in a browser."""

    def __init__(self, browser: Browser, shop: Shop) -> None:
        self._browser = browser
        self.shop = shop
        wait_until(lambda: "open http" in shop.log.read_text(), within=PATIENCE, show=shop.log.read_text)
        self._tab = browser.open(f"http://{shop.http}/")

    def row(self, what: str) -> list[str]:
        """Return what the table says about some goods: what, left, state, restarts, node, reason."""
        script = f"return [...(document.getElementById('{what}')?.cells ?? [])].map(cell => cell.textContent)"
        found: list[str] = self._browser.run(self._tab, script)
        return found[:6] or [""] * 6

    def click(self, button: str) -> None:
        self._browser.run(self._tab, f"document.getElementById('{button}').click()")

    def said(self) -> str:
        found: str = self._browser.run(self._tab, "return document.getElementById('said').textContent")
        return found

    def until(self, what: str, *expected: str | None) -> list[str]:
        """Wait until a row begins so; None: anything."""

        def fits() -> list[str]:
            row = self.row(what)
            return row if all(text in (None, cell) for text, cell in zip(expected, row, strict=False)) else []

        return wait_until(fits, within=PATIENCE, show=lambda: (self.row(what), self.shop.log.read_text()[-3000:]))


@pytest.fixture
def page() -> Iterator[Page]:
    if not shutil.which("chromedriver"):
        pytest.skip("there is no chromedriver")
    with TemporaryDirectory() as scratch, ExitStack() as stack:
        shop = Shop(stack, Path(scratch))
        browser = Browser(Path(scratch))
        stack.callback(browser.close)
        yield Page(browser, shop)


def test_shelves_that_crash_come_back_and_those_of_a_killed_backend_move(page: Page) -> None:
    page.until("apples", "apples", "20", "running", "0")
    page.click("buy-apples")
    page.until("apples", "apples", "19", "running", "0")
    page.click("crash-apples")
    row = page.until("apples", "apples", "20", "running", "1")
    assert row[5] == "die RuntimeError: the shelf with the apples fell over"
    page.until("pears", "pears", "10", "running", "0")
    home = row[4]
    page.shop.backends[home].send_signal(signal.SIGKILL)
    [other] = set(page.shop.backends) - {home}

    def bought() -> bool:
        page.click("buy-apples")
        row = page.row("apples")
        return row[4] == other and row[1] not in ("?", "20")

    wait_until(bought, within=PATIENCE, show=lambda: (page.row("apples"), page.said()))
    page.until("pears", "pears", "10", "running", None, other)
