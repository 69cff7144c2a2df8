# SPDX-License-Identifier: MIT
"""Count in several ways, with four workers at the same time, and show how much of it is lost.

It starts gunicorn, and Redis if that is installed, and stops both in the end.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from tempfile import TemporaryDirectory

CLIENTS = 8
REQUESTS = 200
TIMES = 4
WAYS = ["stash: get, then put", "Counter.add"]
WITH_REDIS = ["Redis: GET, then SET", "Redis: INCR"]


@contextmanager
def server(path: Path, command: list[str], **environ: str) -> Generator[None, None, None]:
    """Run a server until it is left; it listens on a Unix socket."""
    with path.with_suffix(".log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=Path(__file__).parent, env={**os.environ, **environ}, stdout=log, stderr=log
        )
        try:
            while True:
                if process.poll() is not None:
                    sys.exit(path.with_suffix(".log").read_text())
                try:
                    connected(path).close()
                    break
                except OSError:
                    time.sleep(0.05)
            yield
        finally:
            process.terminate()
            process.wait()


def connected(path: Path) -> socket.socket:
    """Return a socket that is connected with a server."""
    made = socket.socket(socket.AF_UNIX)
    try:
        made.connect(str(path))
    except OSError:
        made.close()
        raise
    return made


def ask(path: Path, way: str, times: int) -> int:
    """Count with some worker; return what the count is then."""
    connection = HTTPConnection("localhost")
    connection.sock = connected(path)
    connection.request("POST", "/", headers={"Way": way, "Times": str(times), "Connection": "close"})
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    if answer.status != 200:
        sys.exit(path.with_suffix(".log").read_text())
    return int(text)


def main() -> None:
    """Start the servers, count, and print a line for each way."""
    ways = list(WAYS)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        http, redis = folder / "http", folder / "redis"
        if shutil.which("redis-server"):
            ways += WITH_REDIS
            command = ["redis-server", "--port", "0", "--unixsocket", str(redis), "--save", "", "--dir", str(folder)]
            stack.enter_context(server(redis, command))
        command = [sys.executable, "-m", "gunicorn", "-b", f"unix:{http}", "app:app"]
        stack.enter_context(server(http, command, REDIS_SOCKET=str(redis)))
        with ThreadPoolExecutor(CLIENTS) as pool:
            for way in ways:
                list(pool.map(lambda _number, way=way: ask(http, way, TIMES), range(REQUESTS)))
                made, found = REQUESTS * TIMES, ask(http, way, 0)
                print(f"{way:22}{found:5} of {made}, {made - found} lost")


if __name__ == "__main__":
    main()
