# SPDX-License-Identifier: MIT
"""Peers that know the secret and turn hostile, and strangers in numbers, in a process of their own."""

from __future__ import annotations

import itertools
import json
import os
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from time import monotonic
from typing import Any

import gevent
from gevent import socket

from tests.support.networking import OUR_PROVIDER, RawPeer

PROGRAM = "from tests.hostile.attacker import attack; attack()"
NAME = "127.0.0.1:9"
OURS = (*OUR_PROVIDER, ("uniq", "once"), ("gproto", "1"))
SPAWN = "AnyEvent::MP::_spawn"
BATCH = 200
"""Packets that are sent at once."""

Packet = list[Any]


def _numbered(make: Callable[[int], Packet]) -> Iterator[Packet]:
    return (make(number) for number in itertools.count())


def _via(victim: str, number: int) -> Packet:
    slave = f"slave/s{number}@{NAME}"
    return ["", "via", slave, victim, ["", "via_up", slave, "u", "word", ""]]


def floods(victim: str) -> dict[str, Iterator[Packet]]:
    """Return the packets that a peer may send forever, by name."""
    entry = "x" * 100
    return {
        "mon1-of-no-port": _numbered(lambda number: ["", "mon1", f"none{number}"]),
        "spawn": _numbered(lambda number: ["", SPAWN, f"hostile{number}", "os.system", "true"]),
        "function": _numbered(lambda number: ["", f"os.system{number}", "true"]),
        "eval": _numbered(lambda _number: ["", "eval", "1", f"{NAME}#r"]),
        "kill": _numbered(lambda number: ["", "kil1", f"none{number}", "die"]),
        "kil0": _numbered(lambda number: ["", "kil0", f"none{number}", "die"]),
        "entries": itertools.chain(
            [["", "g_slave", {}]], _numbered(lambda number: ["", "g_upd", "f", {f"k{number}": entry}, []])
        ),
        "entry-over-and-over": itertools.chain(
            [["", "g_slave", {}]], _numbered(lambda number: ["", "g_upd", "f", {"k": number}, []])
        ),
        "families-watched": _numbered(lambda number: ["", "g_mon1", f"family{number}"]),
        "queries": _numbered(lambda number: ["", "g_db_family", "f", str(number)]),
        "via": _numbered(lambda number: _via(victim, number)),
        "forged-via": _numbered(lambda number: ["", "via", f"10.0.0.1:{number}", "10.0.0.2:1", []]),
        "idle": _numbered(lambda _number: ["", "idle"]),
        "stay": _numbered(lambda _number: ["", "stay"]),
        "after": _numbered(lambda number: ["", "after", f"nonce{number}", number]),
        "relay": _numbered(lambda number: ["", "snd", f"10.0.0.1:{number % 9999 + 1}#p", "x"]),
        "relay-to-itself": _numbered(lambda _number: ["", *["snd", victim] * 100, "devnull"]),
        "no-such-port": _numbered(lambda number: [f"none{number}", "x" * 100]),
        "time": _numbered(lambda _number: ["", "time", f"{NAME}#r"]),
        "bad-requests": _numbered(lambda number: ["", "mon1", {"x": number}]),
        "bye": _numbered(lambda _number: ["", "bye"]),
    }


def flood(victim: str, packets: Iterator[Packet], seconds: float, rate: float | None) -> dict[str, int]:
    """Send packets for a while, as a peer that reads what it gets; dial again when the link is lost."""
    sent = size = links = 0
    end = monotonic() + seconds
    while monotonic() < end:
        with suppress(OSError, EOFError), RawPeer.dial(victim, NAME, extras=OURS).shake() as peer:
            links += 1
            reader = gevent.spawn(_read, peer.sock)
            begin, before = monotonic(), sent
            try:
                while monotonic() < end:
                    data = b"".join(map(peer.encode, itertools.islice(packets, BATCH)))
                    peer.sock.sendall(data)
                    sent += BATCH
                    size += len(data)
                    if rate is not None:
                        gevent.sleep(max(0.0, begin + (sent - before) / rate - monotonic()))
                    else:
                        gevent.sleep(0)
            finally:
                reader.kill()
        gevent.sleep(0.05)  # refused, or lost
    return {"packets": sent, "bytes": size, "links": links}


def _read(sock: socket.socket) -> None:
    with suppress(OSError):
        while sock.recv(2**20):
            pass


def _dial(victim: str) -> socket.socket:
    host, _, port = victim.rpartition(":")
    sock = socket.socket()
    sock.settimeout(5)
    sock.connect((host, int(port)))
    return sock


def strangers(victim: str, seconds: float, say: Callable[[socket.socket], None]) -> dict[str, int]:
    """Connect again and again, some at once, as fast as one is let in."""
    count = 0
    end = monotonic() + seconds

    def one() -> None:
        nonlocal count
        while monotonic() < end:
            with suppress(OSError), _dial(victim) as sock:
                count += 1
                say(sock)
            gevent.sleep(0)

    gevent.joinall([gevent.spawn(one) for _ in range(20)])
    return {"connections": count}


def _half(sock: socket.socket) -> None:
    sock.sendall(f"aemp;1;{NAME};hmac_sha3_512;msgpack\nnonce\n".encode())
    sock.recv(65536)
    sock.recv(65536)


def _junk(sock: socket.socket) -> None:
    sock.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500))
    sock.recv(65536)


def _wrong(sock: socket.socket) -> None:
    with suppress(Exception):
        peer = RawPeer(sock, NAME, secret="wrong")
        peer.greet()
        sock.sendall(peer.handshake.prove())
        peer.closed()


def _slow(sock: socket.socket) -> None:
    for byte in b"aemp;1;" + b"x" * 1000:
        sock.sendall(bytes([byte]))
        gevent.sleep(0.01)


def _scan(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


STRANGERS: dict[str, Callable[[socket.socket], None]] = {
    "half-handshakes": _half,
    "tls-junk": _junk,
    "wrong-secrets": _wrong,
    "slowloris": _slow,
    "port-scan": _scan,
}


def giants(victim: str, seconds: float, size: int) -> dict[str, int]:
    """Send messages that are too large, and dial again each time."""
    links = sent = 0
    end = monotonic() + seconds
    data = b"\x92\xa1x\xc6" + size.to_bytes(4, "big")
    while not links or monotonic() < end:  # where the processor is busy, that may be long over
        with suppress(OSError, EOFError), RawPeer.dial(victim, NAME, extras=OURS).shake() as peer:
            links += 1
            peer.sock.sendall(data)
            sent += len(data)
            while True:  # until the victim closes the connection
                peer.sock.sendall(bytes(65536))
                sent += 65536
                gevent.sleep(0)
        gevent.sleep(0.05)
    return {"bytes": sent, "links": links}


def attack() -> None:
    """Do as the arguments say: the victim, what, for how many seconds, and how many packets a second (JSON)."""
    victim, what, seconds, rate = json.loads(sys.argv[1])
    os.nice(10)  # as if it were on another host: its work is not to be the victim's
    print("ready", flush=True)
    if what in STRANGERS:
        told = strangers(victim, seconds, STRANGERS[what])
    elif what == "giants":
        told = giants(victim, seconds, 2**26)
    else:
        told = flood(victim, floods(victim)[what], seconds, rate)
    print(json.dumps(told), flush=True)
