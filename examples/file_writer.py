# SPDX-License-Identifier: MIT
"""Selective receive: an actor that writes one client's file at a time, while others wait.

    python examples/file_writer.py            # into a new temporary folder
    python examples/file_writer.py FOLDER

Three clients open, write and close their files all at once. While anna's file is open the
writer receives only what anna sends; the messages of the others stay in its mailbox, in order, until
it asks for them. No locks, no queues, no table of half-written files. One client dies with its file
open: a monitor's message ends that file, and the next one is opened.
"""

import argparse
import tempfile
from pathlib import Path
from typing import TextIO

import gevent

from aemp_gevent import SELF, actor, attach, get, kil, mon, receive, shutdown_on_signal, snd


@actor
def file_writer(folder: Path) -> None:
    """Take ("open", client, name), then from that client alone ("write", client, text) and ("close", client)."""
    me = SELF()
    while True:
        match receive("open", "stop"):
            case "open", client, name:
                with (folder / name).open("w", encoding="utf-8") as file, mon(client, me, "died", client):
                    print(f"{name} is opened")
                    snd(client, "opened", name)
                    is_alive, summary = write_all(file, client)
                    print(f"{name} is closed: {summary}")
                if is_alive:
                    snd(client, "closed", name)
            case _:
                return


def write_all(file: TextIO, client: str) -> tuple[bool, str]:
    """Write what one client sends, and nothing else, until it closes its file or dies; say whether it is alive."""
    lines = 0
    while True:
        match receive(["write", client], ["close", client], ["died", client]):
            case "write", _, text:
                file.write(f"{text}\n")
                lines += 1
            case "close", _:
                return True, f"{lines} lines"
            case "died", _, *reason:
                return False, f"{lines} lines, then its client died ({', '.join(map(str, reason))})"
            case _:
                pass


@actor
def client(name: str, writer: str, *, clumsy: bool = False) -> None:
    """Write a file of three lines, taking a while over each."""
    me = SELF()
    snd(writer, "open", me, f"{name}.txt")
    for line in ("one", "two", "three"):
        snd(writer, "write", me, f"{name}'s line {line}")
        gevent.sleep(0.01)  # now the others send theirs
    get("opened")
    if clumsy:
        kil(me, "broke the pencil")
        return
    snd(writer, "close", me)
    get("closed")


def main() -> None:
    """Start the writer and its clients, and wait for all of them."""
    parser = argparse.ArgumentParser(description="Let three clients write files through one actor.")
    parser.add_argument("folder", nargs="?", type=Path, help="where to write; default: a new temporary folder")
    folder = parser.parse_args().folder or Path(tempfile.mkdtemp(prefix="file_writer-"))
    folder.mkdir(parents=True, exist_ok=True)

    shutdown_on_signal()
    with attach() as me:
        writer = file_writer(folder)
        mon(writer, me, "writer died")
        clients = [client("anna", writer), client("ben", writer, clumsy=True), client("cleo", writer)]
        for port in clients:
            mon(port, me, "client died")
        for _ in clients:
            get("client died", timeout=5)
        snd(writer, "stop")  # it stands behind all that the clients sent
        get("writer died", timeout=5)
    print(f"All files are in {folder}")


if __name__ == "__main__":
    main()
