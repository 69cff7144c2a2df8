# SPDX-License-Identifier: MIT
"""AempManager beside RedisManager, in turn in one run: ``python -m benchmarks.socketio_beside_redis``.

Two kinds of rows. *manager*: one process emits, the other has a server without clients, and takes the time when the
manager hands it a message. *gunicorn*: four workers with real clients over WebSocket (``soak.socketio_crowd``), where
most of the time is spent in the clients, which share one process, and in python-socketio.

Needs Debian's redis-server and the extras bench and test. Redis listens on loopback, its default, or on a Unix
socket, which is what nodes of one host use.
"""

from __future__ import annotations

# ruff: noqa: E402  # first: redis-py has sockets
from gevent import monkey

monkey.patch_all()

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import gevent
from gevent.event import Event
from gevent.fileobject import FileObject

ROOT = Path(__file__).parents[1]
SERVER = ROOT / "tests" / "contrib" / "socketio_server"
KINDS = ("aemp", "redis", "redis, Unix socket")

PACED_SECONDS = 0.002
"""The pause between two messages whose latency is measured."""


def manager(url, **options):
    """Return a client manager for a URL."""
    import socketio

    from aemp_gevent.contrib.socketio import AempManager

    return (AempManager if url.startswith("aemp") else socketio.RedisManager)(url, **options)


def listen(url, count):
    """Take messages; print when ready, then what was measured. One message comes first, until it is answered."""
    import socketio

    mine = manager(url)
    socketio.Server(client_manager=mine, async_mode="gevent")
    begins, seconds, done = [], [], Event()

    def handle(message):
        (began,) = message["data"]
        if began == 0:
            print("warm", flush=True)
            return
        begins.append(began)
        seconds.append(time.monotonic() - began)
        if len(seconds) == count:
            done.set()

    mine._handle_emit = handle
    mine.initialize()
    print("ready", flush=True)
    assert done.wait(120), f"{len(seconds)} of {count} messages came"
    rate = count / (begins[-1] + seconds[-1] - begins[0])
    seconds.sort()
    print(json.dumps([1000 * seconds[count // 2], 1000 * seconds[99 * count // 100], rate]))


def emit(url, count, pause):
    """Emit messages, after the first one is known to have arrived."""
    mine = manager(url, write_only=True)
    told = FileObject(sys.stdin.fileno(), closefd=False)
    go = gevent.spawn(told.readline)
    while not go.ready():
        mine.emit("said", 0)  # Redis may not have a subscriber yet
        gevent.sleep(0.05)
    for _ in range(count):
        mine.emit("said", time.monotonic())
        if pause:
            gevent.sleep(pause)
    told.readline()


def measure_manager(url, count, pause):
    """Return p50 and p99 in ms, and messages a second."""
    here = [sys.executable, "-m", "benchmarks.socketio_beside_redis"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
    with contextlib.ExitStack() as stack:
        listener: Any = stack.enter_context(subprocess.Popen([*here, "--listen", url, str(count)], **pipes))
        stack.callback(listener.kill)
        assert listener.stdout.readline() == "ready\n"
        emitter: Any = stack.enter_context(subprocess.Popen([*here, "--emit", url, str(count), str(pause)], **pipes))
        stack.callback(emitter.kill)
        while listener.stdout.readline() != "warm\n":
            pass
        emitter.stdin.write("go\n")
        emitter.stdin.flush()
        return json.loads(next(line for line in listener.stdout if line.startswith("[")))


def measure_gunicorn(url, scratch, crowd):
    """Return p50 and p99 in ms, and messages a second."""
    sys.path.insert(0, str(ROOT))
    from soak.web import Gunicorn
    from tests.support.networking import free_address

    if not url.startswith("aemp"):
        os.environ["TEST_REDIS"] = url
    try:
        # Not preloaded: the workers of RedisManager would have one host_id, and take all messages for their own.
        with Gunicorn(SERVER, scratch, workers=4, address=free_address()) as server:
            # RedisManager subscribes in the background: without a pause, the first messages could be lost.
            options = [*crowd, "--settle=2", "--patience=10"]
            command = [sys.executable, "-m", "soak.socketio_crowd", server.address, "0", *options]
            seen = json.loads(subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True).stdout)
    finally:
        os.environ.pop("TEST_REDIS", None)
    if seen["faults"]:
        print(f"# {url}: {seen['faulty']} sequences of messages are incomplete: {seen['faults']}", file=sys.stderr)
    return seen["p50_ms"], seen["p99_ms"], seen["acknowledged"] / seen["hear_seconds"]


@contextlib.contextmanager
def redis_server(folder):
    """Yield the URLs of a Redis, by kind."""
    from tests.support.networking import free_address

    if not shutil.which("redis-server"):
        sys.exit("there is no redis-server: apt install redis-server")
    port = free_address().rpartition(":")[2]
    command = ["redis-server", "--port", port, "--unixsocket", f"{folder}/redis", "--save", "", "--dir", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:
            while not Path(folder, "redis").exists():
                gevent.sleep(0.01)
            yield {"redis": f"redis://127.0.0.1:{port}/0", "redis, Unix socket": f"unix://{folder}/redis"}
        finally:
            server.terminate()


def run(rounds, scale):
    """Measure everything in turn, and print a table."""
    flood, paced = int(20_000 * scale), int(1500 * scale)
    crowd = {
        "gunicorn, 1 sender": ["--clients=40", "--rooms=10", f"--messages={int(1000 * scale)}", "--senders=1"],
        "gunicorn, 16 senders": ["--clients=40", "--rooms=10", f"--messages={int(4000 * scale)}", "--senders=16"],
    }
    found: dict[str, dict[str, list[Any]]] = {}
    with tempfile.TemporaryDirectory(prefix="b") as folder, redis_server(folder) as urls:
        urls["aemp"] = f"aemp://bench?folder={folder}/own"
        for number in range(rounds):
            # Another one begins in each round.
            for kind in [*KINDS[number % 3 :], *KINDS[: number % 3]]:
                url = urls[kind]
                rows = {
                    f"manager, every {1000 * PACED_SECONDS:.0f} ms": measure_manager(url, paced, PACED_SECONDS),
                    "manager, as fast as it can": measure_manager(url, flood, 0),
                }
                for name, options in crowd.items():
                    with tempfile.TemporaryDirectory(prefix="b") as scratch:
                        rows[name] = measure_gunicorn(url, Path(scratch), options)
                for name, figures in rows.items():
                    found.setdefault(name, {}).setdefault(kind, []).append(figures)
                    print(f"# {name} | {kind} | {figures}", file=sys.stderr, flush=True)
    print("| row | figure | aemp | redis | redis, Unix socket | aemp / redis | aemp / redis, Unix socket |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for name, kinds in found.items():
        for position, figure in enumerate(("p50 ms", "p99 ms", "messages/s")):
            if (position == 2) != ("fast" in name) and name.startswith("manager"):
                continue  # a paced rate was chosen, and how long messages wait in a flood depends on its length
            ours, tcp, unix = (median(figures[position] for figures in kinds[kind]) for kind in KINDS)
            shown = " | ".join(f"{value:.{0 if position == 2 else 2}f}" for value in (ours, tcp, unix))
            print(f"| {name} | {figure} | {shown} | {ours / tcp:.2f} | {ours / unix:.2f} |")


def main():
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.socketio_beside_redis")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="how much of the work")
    parser.add_argument("--listen", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--emit", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.listen:
        listen(args.listen[0], int(args.listen[1]))
    elif args.emit:
        emit(args.emit[0], int(args.emit[1]), float(args.emit[2]))
    else:
        run(args.rounds, args.scale)


if __name__ == "__main__":
    main()
