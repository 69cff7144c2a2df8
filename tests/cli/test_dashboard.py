# SPDX-License-Identifier: MIT
"""``aemp dashboard``: the page is served until Ctrl-C."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest
from gevent import socket

from tests.cli.helpers import aemp, running
from tests.support.networking import SECRET, MakeNode, line_of

pytestmark = pytest.mark.slow


def get(port: int, path: str) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 30) as to:
        to.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        return b"".join(iter(lambda: to.recv(4096), b""))


def test_page_is_served_until_ctrl_c(home: Path, make_node: MakeNode) -> None:
    (home / "config.json").write_text("{}")
    node = make_node()
    options = ["--listen", "127.0.0.1:0", "--seed", node.NODE()]
    with running(home, "dashboard", *options, env={"AEMP_SECRET": SECRET}) as process:
        address = re.fullmatch(r"http://127\.0\.0\.1:(\d+)(/\?token=\S+)", line_of(process).strip())
        assert address is not None
        assert b"401" in get(int(address[1]), "/")
        assert b"303 See Other" in get(int(address[1]), address[2])
        process.send_signal(signal.SIGINT)
        assert process.wait(30) in {0, 130}


@pytest.mark.parametrize("listen", ["8040", "x:y", ":70000"])
def test_wrong_address_says_what_it_must_be(home: Path, listen: str) -> None:
    done = aemp(home, "dashboard", "--listen", listen, check=False, env={"AEMP_SECRET": SECRET})
    assert done.returncode == 2
    assert "--listen must be HOST:PORT or :PORT" in done.stderr
