# SPDX-License-Identifier: MIT
"""Take the pictures of the dashboard for its page: real nodes, a headless browser, a desktop and a phone.

Needs chromedriver. Run it after the dashboard's page has changed; the pictures are in ``docs/howto/dashboard``.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[1]))

from gevent.pywsgi import WSGIServer

from aemp_gevent import Node
from aemp_gevent.contrib.dashboard import dashboard_app
from aemp_gevent.testing import NodeProcess, wait_until
from soak.browser import Browser

FOLDER = Path(__file__).parent / "howto" / "dashboard"

SIZES = {"desktop-light": (1280, 900, "light"), "desktop-dark": (1280, 900, "dark"), "phone": (390, 800, "light")}
PATIENCE = 60

_WORK = """
import gevent
from aemp_gevent import port, port_async, grp_reg, grp_get, snd, SELF
grp_reg("prices", port(lambda *message: None))
def ask():
    while True:
        gevent.sleep(0.01)
        for other in grp_get("prices") or ():
            snd(other, "price", 3)
port_async(ask)
"""

_COUNT = "return document.querySelectorAll('#dots g').length"
_RATE = "return [...document.querySelectorAll('#rows td:nth-child(4)')].filter(cell => cell.textContent).length"


def main() -> None:
    """Write all pictures."""
    FOLDER.mkdir(exist_ok=True)
    with ExitStack() as stack:
        browser = Browser(Path(stack.enter_context(TemporaryDirectory())))
        stack.callback(browser.close)
        node = Node()
        node.configure(nodeid="shop/admin", binds=["127.0.0.1:0"], secret="a secret of the tests")  # noqa: S106
        stack.callback(node.shutdown, 1)
        names = ["shop/orders", "shop/prices", "shop/stock", "shop/mail", "web/1", "web/2"]
        processes = {
            name: stack.enter_context(NodeProcess(nodeid=name, binds=["127.0.0.1:0"], seeds=node.addresses()))
            for name in names
        }
        for process in processes.values():
            process.run(_WORK)
        server = WSGIServer(("127.0.0.1", 0), dashboard_app(token="t", node=node), log=None, spawn=32)  # noqa: S106
        server.start()
        stack.callback(server.stop, 1)
        tab = browser.open(f"http://127.0.0.1:{server.server_port}/?token=t")
        wait_until(lambda: browser.run(tab, _COUNT) == len(names) + 1, within=PATIENCE)
        wait_until(lambda: browser.run(tab, _RATE) == len(names) + 1, within=PATIENCE)
        processes["shop/mail"].kill()
        wait_until(lambda: "gone" in browser.run(tab, "return document.getElementById('news').textContent"), within=30)
        for name, (width, height, scheme) in SIZES.items():
            browser.emulate(tab, width, height, scheme)
            (FOLDER / f"{name}.png").write_bytes(browser.picture(tab))
        browser.emulate(tab, 1280, 900, "light")
        browser.run(tab, "document.querySelector('#rows tr:nth-child(3) button').click()")
        browser.run(tab, "[...document.querySelectorAll('[role=tab]')].find(t => t.textContent === 'Ports').click()")
        wait_until(lambda: browser.run(tab, "return document.querySelectorAll('#panel tr').length") > 1, within=30)
        (FOLDER / "node.png").write_bytes(browser.picture(tab))
        browser.close_tab(tab)


if __name__ == "__main__":
    main()
