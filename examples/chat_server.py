# SPDX-License-Identifier: MIT
"""A chat room with one well-known port, to which every event is a message.

Start it, and in other shells some clients::

    python examples/chat_server.py
    python examples/chat_client.py anna

The room knows its guests by their ports, and monitors each: however a guest leaves (with a
goodbye, by a crash, or by a power failure), the room gets a message with the reason.
chat_server2.py is the same chat with a port here for each client.
"""

import argparse
import logging
import os
import signal
import sys

import gevent

from aemp_gevent import NODE, PortKilled, attach, initialise_node, kil, mon, receive, reg, shutdown, snd
from aemp_gevent.errors import ListenError

DEMO_SECRET = "known-to-everybody"

guests: dict[str, str] = {}
"""The guests' names, by their ports."""


def tell_all(*msg: str) -> None:
    """Send a message to every guest, and print it."""
    print(*msg[1:], sep=": ", flush=True)
    for guest in list(guests):
        snd(guest, *msg)


def run_room(room: str) -> None:
    """Serve forever; ignore unknown messages."""
    while True:
        match receive():
            case "join", str(name), str(guest) if name in guests.values():
                snd(guest, "refused", f"somebody called {name} is in the room already")
            case "join", str(name), str(guest):
                snd(guest, "welcome", *guests.values())
                guests[guest] = name
                tell_all("news", f"{name} joined")
                mon(guest, room, "left", guest)
            case "say", str(guest), str(text) if guest in guests:
                tell_all("said", guests[guest], text)
            case "left", str(guest), *reason if guest in guests:
                tell_all("news", f"{guests.pop(guest)} left ({', '.join(map(str, reason)) or 'goodbye'})")
            case _:
                pass


def main() -> None:
    """Read the command line, become a node, and be the room."""
    parser = argparse.ArgumentParser(description="Serve a chat room for chat_client.py.")
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
        with attach() as room:
            reg(room, "chat")  # from now on, NODE()#chat
            gevent.signal_handler(signal.SIGINT, kil, room, "the room was closed")
            print(f"The room is open at {NODE()}. Ctrl-C closes it.", flush=True)
            run_room(room)
    except PortKilled:
        shutdown()


if __name__ == "__main__":
    main()
