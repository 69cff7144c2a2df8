# SPDX-License-Identifier: MIT
"""Say hello, by message, in one process: an actor, a script that talks to it, and its death.

    python examples/hello.py
    python examples/hello.py Ada Grace

Shows ``actor`` (a port with a greenlet of its own), ``attach`` (a port for the script
itself), ``snd`` and ``receive``, and that a monitor tells how a port died.
"""

import argparse

from aemp_gevent import actor, attach, get, kil, mon, receive, shutdown_on_signal, snd


@actor
def greeter(word: str) -> None:
    """Answer everybody who says hello."""
    while True:
        _, name, sender = receive("hello")
        snd(sender, "answer", f"{word}, {name}!")


def main() -> None:
    """Greet the names on the command line."""
    parser = argparse.ArgumentParser(description="Greet some names, by message.")
    parser.add_argument("names", nargs="*", default=["world", "gevent"], metavar="NAME")
    names = parser.parse_args().names

    shutdown_on_signal()
    with attach() as me:
        port = greeter("Hello")  # returns at once, with the ID of the new port: a plain string
        mon(port, me, "gone")  # when it dies, send ("gone", *reason) to me
        for name in names:
            snd(port, "hello", name, me)
            print(*get("answer", timeout=5))
        kil(port, "nobody left to greet")
        print("The greeter died:", *get("gone", timeout=5))


if __name__ == "__main__":
    main()
