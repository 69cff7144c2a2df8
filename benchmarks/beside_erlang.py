# SPDX-License-Identifier: MIT
"""The rows in Erlang/OTP, where ``erl`` is installed (Debian: erlang-base): ``erlang/bench.erl``, in fresh emulators.

``python -m benchmarks.beside_erlang ROW VARIANT N`` runs one row once and prints its figure as one JSON line.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from gevent import socket

from benchmarks.bare import LOOPBACK
from benchmarks.peer import LIMIT_SECONDS, ROOT, one_cpu

PAIRS = {
    "L1": (("callback", "gen_server"),),
    "L2": (("callbacks", "gen_server"),),
    "L3": (("receive", "receive"),),
    "L4": (("callbacks", "gen_server"), ("greenlets", "receive")),
    "L5": (("resident", "process"),),
    "L6": (("chained", "chained"), ("burst", "burst")),
    "N1": (
        ("receive, one cpu", "receive, one cpu"),
        ("callback, one cpu", "gen_server, one cpu"),
        ("receive, free", "receive, free"),
        ("callback, free", "gen_server, free"),
    ),
    "N2": (("snd", "gen_server"),),
    "N3": (("snd", "gen_server"),),
    "N4": (
        ("syncal", "gen_server:call"),
        ("call", "gen_server:call"),
        ("call, served", "gen_server:call"),
        ("snd + receive", "bare"),
    ),
    "N6": (("snd", "gen_server"),),
}
"""Which variants of ours and of Erlang's do the same work. Over TLS (N5) Erlang needs its package ssl: left out."""


def is_installed() -> bool:
    """Return whether Erlang is."""
    return shutil.which("erl") is not None and shutil.which("erlc") is not None


def main(row: str, variant: str, n: str) -> int:
    """Run one row once."""
    signal.alarm(LIMIT_SECONDS)
    os.environ["ERL_CRASH_DUMP_SECONDS"] = "0"  # no file beside the error
    if "one cpu" in variant and not one_cpu():
        print('{"skipped": "this system cannot pin a process to a CPU"}')
        return 0
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["erlc", "-o", folder, ROOT / "benchmarks" / "erlang" / "bench.erl"], check=True)
        if row[0] == "L":
            return run(["-pa", folder], row, variant, n)
        with peer(folder) as names:
            return run(["-name", "driver@127.0.0.1", "-dist_listen", "false", *names], row, variant, n)


def run(flags: list[str], *args: str) -> int:
    """Run the driver."""
    return subprocess.run(["erl", "-noshell", *flags, "-run", "bench", "main", *args], check=False).returncode


@contextmanager
def peer(folder: str) -> Iterator[list[str]]:
    """Run the other node; yield the arguments with which a node finds it: no name server is started."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port = probe.getsockname()[1]
    shared = ["-pa", folder, "-start_epmd", "false", "-erl_epmd_port", str(port), "-setcookie", "benchmark"]
    command = ["erl", "-noshell", "-name", "peer@127.0.0.1", *shared, "-run", "bench", "serve"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            raise RuntimeError("Erlang's peer ended before it was ready: see above")
        yield shared
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: python -m benchmarks.beside_erlang ROW VARIANT N")
    sys.exit(main(*sys.argv[1:]))
