# SPDX-License-Identifier: MIT
"""A client of chat_server.py: type a line to send it; Ctrl-D leaves.

    python examples/chat_client.py anna

Every event is a message to one port: messages of others, lines that you type, the server's
death. So the main loop is one ``receive``, and needs no locks.
"""

import argparse
import logging
import os
import signal
import sys

import gevent
from gevent.socket import wait_read

from aemp_gevent import attach, initialise_node, mon, receive, resolve_node, shutdown, snd

DEMO_SECRET = "known-to-everybody"


def read_terminal(port: str) -> None:
    """Send each typed line to a port, and ("eof",) at the end. Other greenlets run meanwhile."""
    rest = b""
    while True:
        wait_read(0)  # sys.stdin.readline() would stop every greenlet of this process
        data = os.read(0, 4096)
        if not data:
            break
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            snd(port, "typed", line.decode(errors="replace"))
    snd(port, "eof")


def chat(me: str, name: str, room: str) -> None:
    """Join the room, and handle messages until the input or the room ends."""
    mon(room, me, "room died")
    snd(room, "join", name, me)
    while True:
        match receive():
            case "welcome", *others:
                print(f"Welcome! Here are: {', '.join(map(str, others)) or 'nobody else'}.", flush=True)
                gevent.spawn(read_terminal, me)
            case "refused", why:
                sys.exit(f"You cannot enter: {why}.")
            case "said", who, text if who != name:
                print(f"{who}: {text}", flush=True)
            case "news", text:
                print(f"* {text}", flush=True)
            case "typed", line if line:
                snd(room, "say", me, line)
            case ("eof",):
                return
            case "room died", *reason:
                sys.exit(f"The server is gone ({', '.join(map(str, reason))}).")
            case _:
                pass


def main() -> None:
    """Read the command line, become a node, and chat."""
    parser = argparse.ArgumentParser(description="Take part in the chat of chat_server.py.")
    parser.add_argument("name", metavar="NAME", help="who you are")
    parser.add_argument("--server", default="127.0.0.1:4040", metavar="HOST:PORT", help="default: %(default)s")
    parser.add_argument(
        "--listen", default="127.0.0.1:0", metavar="HOST:PORT", help="an address the server can reach (%(default)s)"
    )
    parser.add_argument("--secret", help="the server's; better given as AEMP_SECRET in the environment")
    parser.add_argument("-v", "--verbose", action="store_true", help="log what the library does")
    args = parser.parse_args()
    if args.verbose:
        logging.basicConfig(level=logging.DEBUG)
    secret = args.secret or os.environ.get("AEMP_SECRET") or DEMO_SECRET
    if secret == DEMO_SECRET:
        print("Warning: using the demo secret, which everybody knows.", flush=True)

    initialise_node(args.listen, secret=secret)
    with attach() as me:
        gevent.signal_handler(signal.SIGINT, snd, me, "eof")  # Ctrl-C is a message, too
        chat(me, args.name, f"{resolve_node(args.server)}#chat")
    shutdown()  # our port's normal death still has to reach the server


if __name__ == "__main__":
    main()
