# SPDX-License-Identifier: MIT
"""The connection to a real etcd: its members, users and certificates."""

from __future__ import annotations

import datetime
import ipaddress
import re
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from aemp_gevent.addresses.endpoints import parse_endpoint
from aemp_gevent.directory.etcd import trouble
from aemp_gevent.directory.etcd.client import encoded
from aemp_gevent.testing import Proxy
from tests.directory.etcd.observers import WAIT, Make, never_without
from tests.support.etcd_server import EtcdServer, needs_etcd
from tests.support.helpers import wait_until
from tests.support.networking import free_address

pytestmark = [needs_etcd, pytest.mark.slow]


def test_the_next_member_is_asked_when_one_does_not_answer(server: EtcdServer, make: Make) -> None:
    nobody = parse_endpoint(free_address())
    with Proxy(server.endpoint) as first, Proxy(server.endpoint) as second:
        both = tuple(parse_endpoint(proxy.address) for proxy in (first, second))
        a = make(replace(server.address(), endpoints=(nobody, *both)), "a", 3, f={"a": 1})
        a.engine.watch("f")
        a.wait("f", {"a": 1})
        for number, proxy in enumerate([first, second, first], 2):
            proxy.heal()
            other = second if proxy is first else first
            other.blackhole()
            server.put("/test/db/f/other/o", b"\x91" + bytes([number]))
            a.wait("f", {"a": 1, "other": number}, within=60)
        assert never_without(a, "f", "a")


def test_users_must_authenticate(
    server: EtcdServer, make: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trouble, "_LOG_SECONDS", 0)
    for user in ("root", "node", "weak"):
        server.call("auth/user/add", {"name": user, "password": f"secret of {user}"})
    for user, role in (("root", "root"), ("node", "ours")):
        server.call("auth/role/add", {"name": role})
        server.call("auth/user/grant", {"user": user, "role": role})
    both = {"key": encoded(b"/test/"), "range_end": encoded(b"/test0"), "permType": "READWRITE"}
    server.call("auth/role/grant", {"name": "ours", "perm": both})
    server.call("auth/enable", {})

    known = replace(server.address(), user="node", password="secret of node")
    a, b = make(known, "a", f={"k": 1}), make(known, "b")
    b.engine.watch("f")
    b.wait("f", {"k": 1})
    assert not re.search("permission denied|authentication|user name", caplog.text)

    # Tokens expire.
    for observer in (a, b):
        observer.engine._cluster.token = "an old one"
    a.set("f", k=2)
    b.engine.watch("g")
    b.wait("f", {"k": 2})
    b.wait("g", {})
    assert b.asked("family", "f") == {"k": 2}

    for number, (user, why) in enumerate(
        {"weak": "permission denied", "nobody": "authentication failed", None: "user name"}.items()
    ):
        caplog.clear()
        stranger = make(replace(server.address(), user=user, password=f"secret of {user}"), f"stranger{number}")
        stranger.engine.watch("f")
        wait_until(lambda why=why: why in caplog.text, within=WAIT, show=lambda: caplog.text)
        assert "secret" not in caplog.text
        assert stranger.steps == []
        stranger.engine.stop()


def certified(folder: Path, host: str) -> tuple[Path, Path]:
    """Return files with a certificate for a host, signed by itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test")])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = folder / f"{host}.pem", folder / f"{host}.key"
    files[0].write_bytes(made.public_bytes(Encoding.PEM))
    files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files


def test_members_and_nodes_must_have_valid_certificates(
    tmp_path: Path, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    files = certified(tmp_path, "127.0.0.1")
    with EtcdServer(tmp_path, files) as server:
        a, b = make(server.address(), "a", f={"k": 1}), make(server.address(), "b")
        b.engine.watch("f")
        b.wait("f", {"k": 1})
        server.restart()
        a.set("f", k=2)
        b.wait("f", {"k": 2})
        strangers = {
            "certificate verify failed": replace(server.address(), ca=None),
            "CA cert|certificate verify failed": replace(server.address(), ca=str(certified(tmp_path, "127.0.0.2")[0])),
            "cannot be used": replace(server.address(), ca=str(tmp_path / "none")),
            "certificate required|bad certificate|reset|broke|without response|EOF occurred": replace(
                server.address(), cert=None, key=None
            ),
        }
        for number, (why, address) in enumerate(strangers.items()):
            caplog.clear()
            stranger = make(address, f"s{number}", f={"k": 3})
            wait_until(lambda why=why: re.search(why, caplog.text), within=WAIT, show=lambda: caplog.text)
            stranger.engine.stop()
        assert b.copies["f"] == {"k": 2}
        a.engine.stop()
        b.engine.stop()
        assert a.engine.stopped.wait(WAIT)
        assert server.keys() == []
