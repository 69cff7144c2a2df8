# SPDX-License-Identifier: MIT
"""The same chat, in which each client spawns a port on this server, its *session*.

    python examples/chat_server2.py
    python examples/chat_client2.py anna

A client spawns ``connect`` here. Client and session monitor each other, so that if one
dies, the other dies, too, and nothing is left over. Compare
chat_server.py, where the server has one port for all clients.
"""

import argparse
import logging
import os
import signal
import sys

import gevent

from aemp_gevent import (
    NODE,
    SELF,
    PortKilled,
    attach,
    initialise_node,
    kil,
    mon,
    rcv,
    receive,
    shutdown,
    snd,
    spawnable,
)
from aemp_gevent.errors import ListenError

DEMO_SECRET = "known-to-everybody"

clients: dict[str, str] = {}
"""The clients' ports by the clients' names."""


def tell_all(*msg: str) -> None:
    """Send a message to every client, and print it."""
    print(*msg[1:], sep=": ", flush=True)
    for client in list(clients.values()):
        snd(client, *msg)


@spawnable  # without this no other node may run it
def connect(name: str, client: str) -> None:
    """Set up a session, in a new port, for a client."""
    session = SELF()
    if name in clients:
        kil(session, "refused", f"somebody called {name} is in the room already")
        return

    def left(*reason: object) -> None:
        del clients[name]
        tell_all("news", f"{name} left ({', '.join(map(str, reason)) or 'goodbye'})")

    mon(client, lambda *reason: kil(session, *reason))  # mon(client) alone would survive a normal death
    mon(session, left)
    rcv(session, say=lambda text: tell_all("said", name, str(text)))
    snd(client, "welcome", *clients)
    clients[name] = client
    tell_all("news", f"{name} joined")


def main() -> None:
    """Read the command line, become a node, and leave the work to the sessions."""
    parser = argparse.ArgumentParser(description="Serve a chat room for chat_client2.py.")
    parser.add_argument("--listen", default="127.0.0.1:4040", metavar="HOST:PORT", help="default: %(default)s")
    parser.add_argument("--secret", help="shared with the clients; better given as AEMP_SECRET in the environment")
    parser.add_argument("-v", "--verbose", action="store_true", help="log what the library does")
    args = parser.parse_args()
    if args.verbose:
        logging.basicConfig(level=logging.DEBUG)
    secret = args.secret or os.environ.get("AEMP_SECRET") or DEMO_SECRET
    if secret == DEMO_SECRET:
        if not args.listen.startswith(("127.", "localhost:", "[::1]:")):
            parser.error("the demo secret will do on 127.0.0.1 only: choose one with --secret or AEMP_SECRET")
        print("Warning: using the demo secret, so every program on this host can take part.", flush=True)

    try:
        initialise_node(args.listen, secret=secret)
    except ListenError as error:
        sys.exit(f"Cannot listen on {error.endpoint}: is a server running there? Choose another address with --listen.")
    try:
        with attach() as me:
            gevent.signal_handler(signal.SIGINT, kil, me)
            print(f"The room is open at {NODE()}. Ctrl-C closes it.", flush=True)
            receive()  # the sessions do the work; this waits until Ctrl-C
    except PortKilled:
        shutdown()


if __name__ == "__main__":
    main()
