# SPDX-License-Identifier: MIT
"""A real etcd for tests, on loopback, with its data in a folder of the test's."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from aemp_gevent.directory.etcd.client import Cluster, EtcdClient, EtcdError, decoded, encoded
from aemp_gevent.settings.directory_address import EtcdAddress, parse_directory
from aemp_gevent.testing.control import is_suspended
from aemp_gevent.testing.waiting import wait_until
from tests.support.networking import free_address

needs_etcd = pytest.mark.skipif(
    shutil.which("etcd") is None, reason="etcd is not installed (on Debian: apt install etcd-server)"
)

START_SECONDS = 30.0


class EtcdServer:
    """One etcd process. ``with`` starts it, and ends it whatever happens.

    Args:
        folder: Where its data and its log are.
        certificate: The files with its certificate, which vouches for itself and for clients, and its key;
            None: no TLS.
    """

    def __init__(self, folder: Path, certificate: tuple[Path, Path] | None = None) -> None:
        self._certificate = certificate
        self._data = folder / "data"
        self._log = folder / "etcd.log"
        self.endpoint = free_address()
        self._peers = free_address()
        self._process: subprocess.Popen[bytes] | None = None

    def address(self, prefix: str = "/test") -> EtcdAddress:
        address = parse_directory(f"etcd://{self.endpoint}{prefix}")
        if self._certificate is not None:
            own, key = self._certificate
            address = parse_directory(f"etcds://{self.endpoint}{prefix}?ca={own}&cert={own}&key={key}")
        assert address is not None
        return address

    def start(self) -> EtcdServer:
        peers, clients = f"http://{self._peers}", f"http://{self.endpoint}"
        if self._certificate is not None:
            clients = f"https://{self.endpoint}"
        command = [
            *("etcd", "--data-dir", str(self._data), "--name", "test"),
            *("--listen-client-urls", clients),
            *("--advertise-client-urls", clients),
            *(
                "--listen-peer-urls",
                peers,
                "--initial-advertise-peer-urls",
                peers,
                "--initial-cluster",
                f"test={peers}",
            ),
            *("--heartbeat-interval", "50", "--election-timeout", "500"),
        ]
        if self._certificate is not None:
            certificate, key = map(str, self._certificate)
            # The last makes it ask clients for theirs.
            command += ["--cert-file", certificate, "--key-file", key, "--trusted-ca-file", certificate]
        if shutil.which("setpriv"):  # it ends with us, even if we are killed
            command = ["setpriv", "--pdeathsig", "KILL", *command]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        wait_until(self._answers, within=START_SECONDS, show=lambda: self._log.read_text()[-2000:])
        return self

    def _answers(self) -> bool:
        with contextlib.suppress(EtcdError):
            self.call("kv/range", {"key": encoded(b"x")})
            return True
        return False

    def kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def restart(self, *, empty: bool = False) -> None:
        self.kill()
        if empty:
            shutil.rmtree(self._data)
        self.start()

    def stop(self) -> None:
        """Suspend it, and wait until it has stopped: connections stay open, and nobody answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        pid = self._process.pid
        wait_until(lambda: is_suspended(pid))

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def __enter__(self) -> EtcdServer:
        try:
            return self.start()
        except BaseException:
            self.kill()
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.kill()

    # --- what is in it ---

    def call(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        client = EtcdClient(Cluster(self.address()), 5.0, lambda: None)
        try:
            return client.call(path, body)
        finally:
            client.close()

    def put(self, key: str, value: bytes, lease: int = 0) -> None:
        self.call("kv/put", {"key": encoded(key.encode()), "value": encoded(value), "lease": str(lease)})

    def delete(self, key: str) -> None:
        self.call("kv/deleterange", {"key": encoded(key.encode())})

    def keys(self, prefix: str = "/test/") -> list[str]:
        begin = prefix.encode()
        end = begin[:-1] + bytes([begin[-1] + 1])
        found = self.call("kv/range", {"key": encoded(begin), "range_end": encoded(end), "keys_only": True})
        return [decoded(kv["key"]).decode() for kv in found.get("kvs", ())]

    def leases(self) -> int:
        return len(self.call("lease/leases", {}).get("leases", ()))

    def compact(self) -> None:
        revision = self.call("kv/range", {"key": encoded(b"x")})["header"]["revision"]
        self.call("kv/compaction", {"revision": revision, "physical": True})
