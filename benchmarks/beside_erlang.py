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
from collections.abc import Generator
from contextlib import ExitStack, contextmanager

from gevent import socket

from benchmarks import n5_net_tls, s1_size
from benchmarks.bare import LOOPBACK
from benchmarks.peer import LIMIT_SECONDS, ROOT, one_cpu

PAIRS = {
    "L1": (("callback", "gen_server, off heap"),),
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
    "N5": (("snd", "gen_server, tls"),),
    "N6": (("snd", "gen_server"),),
    "S1": s1_size.COMPARISONS,
}
"""Which variants of ours and of Erlang's do the same work."""


def is_installed() -> bool:
    """Return whether Erlang is."""
    return shutil.which("erl") is not None and shutil.which("erlc") is not None


def version() -> str:
    """Return the release of OTP that is installed."""
    look = "io:put_chars(erlang:system_info(otp_release)), halt(0)."
    return subprocess.run(["erl", "-noshell", "-eval", look], capture_output=True, text=True, check=False).stdout


def has_tls() -> bool:
    """Return whether Erlang has its application ssl (Debian: erlang-ssl)."""
    look = "halt(case code:lib_dir(ssl) of {error, _} -> 1; _ -> 0 end)."
    return subprocess.run(["erl", "-noshell", "-eval", look], check=False).returncode == 0


def main(row: str, variant: str, n: str) -> int:
    """Run one row once."""
    signal.alarm(LIMIT_SECONDS)
    os.environ["ERL_CRASH_DUMP_SECONDS"] = "0"  # no file beside the error
    if "one cpu" in variant and not one_cpu():
        print('{"skipped": "this system cannot pin a process to a CPU"}')
        return 0
    if row == "N5" and not has_tls():
        print('{"skipped": "Erlang has no TLS: its application ssl is not installed"}')
        return 0
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["erlc", "-o", folder, ROOT / "benchmarks" / "erlang" / "bench.erl"], check=True)
        if row[0] == "L":
            return run(["-pa", folder], row, variant, n)
        with ExitStack() as stack:
            tls = stack.enter_context(tls_flags()) if row == "N5" else []
            names = stack.enter_context(peer(folder, tls))
            return run(["-name", "driver@127.0.0.1", "-dist_listen", "false", *names], row, variant, n)


def run(flags: list[str], *args: str) -> int:
    """Run the driver."""
    return subprocess.run(["erl", "-noshell", *flags, "-run", "bench", "main", *args], check=False).returncode


@contextmanager
def tls_flags() -> Generator[list[str], None, None]:
    """Yield what makes nodes talk over TLS, with the certificate that our nodes would have."""
    with n5_net_tls.certificate():
        options = [
            *("server_certfile", os.environ[n5_net_tls.VARIABLE]),
            *("server_verify", "verify_none"),
            *("client_verify", "verify_none"),
        ]
        yield ["-proto_dist", "inet_tls", "-ssl_dist_opt", *options]


@contextmanager
def peer(folder: str, flags: list[str]) -> Generator[list[str], None, None]:
    """Run the other node; yield the arguments with which a node finds it: no name server is started."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port = probe.getsockname()[1]
    shared = ["-pa", folder, "-start_epmd", "false", "-erl_epmd_port", str(port), "-setcookie", "benchmark", *flags]
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
