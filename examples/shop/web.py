# SPDX-License-Identifier: MIT
"""The shop's front: a page, and the supervisor of the shelves.

python web.py [HTTP_PORT [NODE]]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from gevent.pywsgi import WSGIServer
from shelf import GROUP, Shelf  # type: ignore[import-not-found]  # pyright: ignore[reportMissingImports]

from aemp_gevent import initialise_node, shutdown_on_signal
from aemp_gevent.errors import AempError
from aemp_gevent.otp import Child, Supervisor

PAGE = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
GOODS = {"apples": 20, "pears": 10}


class Shop(Supervisor):
    """Keeps a shelf for each kind of goods, on any backend."""

    def children(self) -> list[Child]:
        """Return the shelves."""
        return [
            Child(Shelf, what, pieces, id=what, on=GROUP, on_lost="restart", start_timeout=60)
            for what, pieces in GOODS.items()
        ]


class Front:
    """Answers requests.

    Args:
        shop: The supervisor.
    """

    def __init__(self, shop: Shop) -> None:
        self.shop = shop

    def shelf(self, what: str) -> Shelf | None:
        """Return a shelf, if it is running."""
        ports = {child["id"]: child["port"] for child in self.shop.which_children(timeout=5)}
        port = ports.get(what)
        return None if port is None else Shelf.at(port)

    def state(self) -> list[dict[str, Any]]:
        """Return how the shelves are."""
        found = []
        for child in self.shop.which_children(timeout=5):
            node, left = "", None
            if child["port"] is not None:
                try:
                    node, left = Shelf.at(child["port"]).look(timeout=1)
                except AempError:
                    child["state"] = "does not answer"
            found.append({**child, "node": node, "left": left})
        return found

    def do(self, action: str, what: str) -> str:
        """Do what a button says, and return what happened."""
        shelf = self.shelf(what)
        if shelf is None:
            return f"The shelf with the {what} is being put up again. Try again in a moment."
        try:
            if action == "crash":
                shelf.crash()
                return f"You pushed over the shelf with the {what}."
            return f"You bought some {what}; {shelf.buy(timeout=5)} are left."
        except AempError as error:
            return f"That did not work: {error}"

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request: the WSGI application."""
        path, kind = environ["PATH_INFO"], "application/json"
        what = parse_qs(environ["QUERY_STRING"]).get("what", [""])[0]
        if path == "/":
            body, kind = PAGE, "text/html; charset=utf-8"
        elif path == "/state":
            body = json.dumps(self.state())
        elif environ["REQUEST_METHOD"] == "POST" and path in ("/buy", "/crash") and what in GOODS:
            body = json.dumps(self.do(path[1:], what))
        else:
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"There is no such page."]
        start_response("200 OK", [("Content-Type", kind), ("Cache-Control", "no-store")])
        return [body.encode()]


def main(http_port: str = "8080", node: str = "127.0.0.1:4040") -> None:
    """Serve the page until Ctrl-C."""
    shutdown_on_signal()
    initialise_node(node)
    print("waiting for a backend", flush=True)
    shop = Shop.start()
    server = WSGIServer(("127.0.0.1", int(http_port)), Front(shop), log=None)
    print(f"open http://127.0.0.1:{http_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
