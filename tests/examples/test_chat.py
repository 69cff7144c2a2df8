# SPDX-License-Identifier: MIT
"""The chats, in both styles: a server and its clients as real processes, typed at through pipes."""

from __future__ import annotations

import os
import pty
import re
import signal
import socket
import sys

import pytest

from tests.support import preloaded

from .conftest import EXAMPLES

pytestmark = pytest.mark.slow

STYLES = [
    pytest.param(("chat_server.py", "chat_client.py"), id="messages"),
    pytest.param(("chat_server2.py", "chat_client2.py"), id="spawning"),
]


class Chat:
    """A server on any free port, and clients that join."""

    def __init__(self, start, style) -> None:
        self._start = start
        server, self._client = style
        self.server = start(server, "--listen", "127.0.0.1:0")
        self.address = self.server.expect("open at ").split(". ")[0]

    def join(self, name, **kwargs):
        client = self.begin_join(name, **kwargs)
        client.expect("Welcome!")
        client.expect(f"* {name} joined")
        return client

    def begin_join(self, name, **kwargs):
        return self._start(self._client, name, "--server", self.address, **kwargs)


@pytest.fixture(params=STYLES)
def chat(start, request):
    return Chat(start, request.param)


def test_what_one_types_the_others_read_and_the_death_of_one_is_reported_to_the_others(chat):
    anna, ben = chat.join("anna"), chat.join("ben")
    anna.expect("* ben joined")
    assert "Here are: anna." in ben.output
    anna.type("hello, Grüße ☃")
    assert ben.expect("anna: ") == "hello, Grüße ☃"
    ben.type("hello yourself")
    assert anna.expect("ben: ") == "hello yourself"
    assert "anna: " not in anna.output, "one does not hear oneself"

    ben.kill()

    assert anna.expect("* ben left (").startswith("transport_error, 127.0.0.1:")
    cleo = chat.join("cleo")
    assert "Here are: anna." in cleo.output
    anna.type("still there?")
    cleo.expect("anna: still there?")


def test_who_ends_the_input_leaves_in_order(chat):
    anna, ben = chat.join("anna"), chat.join("ben")
    ben.type("bye")
    ben.end_input()
    assert ben.wait() == 0
    anna.expect("ben: bye")
    assert anna.expect("* ben left (") == "goodbye)"


def test_who_presses_ctrl_c_leaves_in_order(chat):
    anna, ben = chat.join("anna"), chat.join("ben")
    ben.signal(signal.SIGINT)
    assert ben.wait() == 0
    assert "Traceback" not in ben.output
    assert anna.expect("* ben left (") == "goodbye)"


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        pytest.param(signal.SIGKILL, r"\(transport_error, 127.0.0.1:.*\)", id="kill"),
        pytest.param(signal.SIGINT, r"\((the room was closed|shutdown, 127.0.0.1:\d+)\)", id="ctrl-c"),
    ],
)
def test_the_end_of_the_server_ends_the_clients(chat, number, reason):
    clients = [chat.join("anna"), chat.join("ben")]
    chat.server.signal(number)
    for client in clients:
        assert client.wait() == 1
        assert re.search(reason, client.output.splitlines()[-1])
        assert "Traceback" not in client.output
    assert "Traceback" not in chat.server.output


def test_a_name_is_given_only_once(chat):
    anna = chat.join("anna")
    other = chat.begin_join("anna")
    assert other.wait() == 1
    assert "somebody called anna is in the room already" in other.output
    anna.type("I am the one")
    chat.server.expect("anna: I am the one")


def test_without_a_server_a_client_says_so(chat):
    chat.server.kill()
    chat.server.wait()
    client = chat.begin_join("anna")
    assert client.wait() == 1
    assert f"(transport_error, {chat.address}, " in client.output
    assert "Connection refused" in client.output


def test_with_another_secret_nobody_gets_in(chat):
    stranger = chat.begin_join("mallory", secret="another")
    assert stranger.wait() == 1
    assert "Welcome" not in stranger.output
    anna = chat.join("anna")
    assert "Here are: nobody else." in anna.output


@pytest.mark.parametrize("style", STYLES)
def test_without_a_secret_both_sides_use_the_demo_secret_and_warn(start, style):
    server, client = style
    room = start(server, "--listen", "127.0.0.1:0", secret=None)
    address = room.expect("open at ").split(". ")[0]
    anna = start(client, "anna", "--server", address, secret=None)
    anna.expect("Welcome!")
    assert "Warning: using the demo secret" in room.output
    assert "Warning: using the demo secret" in anna.output


@pytest.mark.parametrize("style", STYLES)
def test_the_demo_secret_is_refused_where_other_hosts_can_connect(start, style):
    server = start(style[0], "--listen", "0.0.0.0:0", secret=None)
    assert server.wait() == 2
    assert "choose one with --secret or AEMP_SECRET" in server.output


def test_a_client_chats_on_a_real_terminal(start):
    chat = Chat(start, ("chat_server.py", "chat_client.py"))
    ben = chat.join("ben")
    ours, theirs = pty.openpty()
    with preloaded.Popen(
        [sys.executable, str(EXAMPLES / "chat_client.py"), "anna", "--server", chat.address],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "AEMP_SECRET": "test"},
    ) as anna:
        try:
            ben.expect("* anna joined")
            os.write(ours, b"typed\n\x04")  # a line, and Ctrl-D
            ben.expect("anna: typed")
            ben.expect("* anna left (goodbye)")
            assert anna.wait(20) == 0
        finally:
            anna.kill()
            os.close(theirs)
            os.close(ours)


@pytest.mark.parametrize("server", ["chat_server.py", "chat_server2.py"])
def test_a_server_that_cannot_listen_says_what_to_do_in_one_line(server):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = preloaded.run(
            [sys.executable, EXAMPLES / server, "--listen", address, "--secret", "s"],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.startswith(f"Cannot listen on {address}: ")
    assert "--listen" in done.stderr
    assert done.stderr.count("\n") == 1
