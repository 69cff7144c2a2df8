# SPDX-License-Identifier: MIT
"""Certificates that ``aemp`` makes are ones that nodes talk to each other with."""

from __future__ import annotations

import shlex
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography import x509

from aemp_gevent.transport.certificates import Certificate
from aemp_gevent.wire.credentials import Credentials
from tests.cli.helpers import Command
from tests.support.helpers import wait_until
from tests.support.networking import MakeNode
from tests.support.seams import network_of

DAY = timedelta(days=1)


def lifetime(certificate: x509.Certificate) -> timedelta:
    return certificate.not_valid_after_utc - datetime.now(timezone.utc)


def modes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir() if path.is_file()}


@pytest.mark.slow
def test_nodes_talk_with_certificates_that_the_ca_issued(
    command: Command, home: Path, make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AEMP_CONFIG")  # of a file that there is not
    command("ca", "init")
    command("ca", "issue", "one")
    command("ca", "issue", "w/*", "--also", "two")
    one = make_node(None)
    one.configure(nodeid="one", binds=["127.0.0.1:0"], cert=str(home / "one.pem"), require_tls=True)
    (seed,) = network_of(one).addresses()
    for name in ("two", "w/5"):
        node = make_node(None)
        node.configure(nodeid=name, binds=[], seeds=[seed], cert=str(home / "w.pem"), require_tls=True)
    wait_until(lambda: sorted(one.up_nodes()) == ["two", "w/5"], within=20, show=one.up_nodes)
    stranger = make_node(None)
    stranger.configure(nodeid="three", binds=[], seeds=[seed], cert=str(home / "w.pem"), require_tls=True)
    assert stranger.wait_for_seeds(20)
    assert stranger.up_nodes() == [], "its certificate does not name it"


def test_what_is_made_is_for_its_owner_alone_and_lives_as_long_as_is_said(command: Command, home: Path) -> None:
    command("ca", "init", "--days", "100")
    command("ca", "issue", "10.0.0.7:*", "--days", "30")
    assert modes(home / "ca") == {"ca.key": 0o600, "ca.crt": 0o600}
    assert modes(home) == {"10.0.0.7.pem": 0o600}
    ca = x509.load_pem_x509_certificate((home / "ca" / "ca.crt").read_bytes())
    assert 99 * DAY < lifetime(ca) < 101 * DAY
    credentials = Credentials((home / "10.0.0.7.pem").read_bytes())
    assert credentials.names == ("10.0.0.7:*",)
    assert not credentials.is_shared
    assert 29 * DAY < lifetime(credentials.certificate) < 31 * DAY
    credentials.certificate.verify_directly_issued_by(ca)


def test_no_certificate_outlives_its_ca(command: Command, home: Path) -> None:
    command("ca", "init", "--days", "10")
    assert "for 9 days only" in command("ca", "issue", "one").err
    assert lifetime(Credentials((home / "one.pem").read_bytes()).certificate) < 10 * DAY


def test_next_steps_that_are_printed_can_be_taken(command: Command, home: Path) -> None:
    command("ca", "init")
    *_, step = command("ca", "issue", "one").out.splitlines()
    words = shlex.split(step)
    assert words[0] == "aemp"
    command(*words[1:])
    profile = command.config["profiles"]["NAME"]
    assert profile == {"cert": str(home / "one.pem"), "nodeid": "one", "require_tls": True}
    Certificate(profile["cert"])


def test_renewing_makes_another_for_the_same_node_in_the_same_place(command: Command, home: Path) -> None:
    command("ca", "init")
    command("ca", "issue", "one", "--also", "uno")
    first = Certificate(str(home / "one.pem"))
    before = first.current().certificate
    assert "replace it with --renew" in command("ca", "issue", "one", code=1).err
    assert (
        "must be renewed for the same IDs: ca issue one --also uno"
        in command("ca", "issue", "one", "--renew", code=2).err
    )
    assert first.current().certificate == before
    command("ca", "issue", "one", "--also", "uno", "--renew")
    assert first.current().certificate != before, "a node that runs takes the new one"
    assert first.current().names == ("one", "uno")


def test_shared_certificate_lets_in_who_has_it(command: Command, home: Path, make_node: MakeNode) -> None:
    command("gencert")
    cert = command.config["cert"]
    assert cert not in command("showconfig").out
    credentials = Credentials(cert.encode())
    assert credentials.is_shared
    assert 3649 * DAY < lifetime(credentials.certificate) < 3651 * DAY
    one = make_node("127.0.0.1:0", cert=cert, secret=None, require_tls=True)
    two = make_node("127.0.0.1:0", one.NODE(), cert=cert, secret=None, require_tls=True)
    wait_until(lambda: one.up_nodes() == [two.NODE()], within=20)


WRONG = [
    (["ca", "issu", "x"], "aemp ca: there is no command 'issu'; did you mean 'issue'?"),
    (["ca", "issue"], "Missing argument 'NODE'"),
    (["ca", "issue", "a b"], "'a b' cannot be certified"),
    (["ca", "issue", "käse"], "cannot be certified"),
    (["ca", "issue", "a*b"], "a * is allowed at the end only"),
    (["ca", "issue", ""], "a certificate needs the ID of a node"),
    (["ca", "issue", "x", "--days", "0"], "--days"),
    (["gencert", "--days", "x"], "--days"),
]


@pytest.mark.parametrize(("words", "why"), WRONG, ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_wrong_input_is_reported_in_one_line(command: Command, words: list[str], why: str) -> None:
    assert why in command.refused(*words)


def test_without_a_ca_it_says_how_to_make_one(command: Command) -> None:
    assert command("ca", "issue", "x", code=1).err.endswith("ca; make one with 'aemp ca init'\n")


def test_ca_is_never_replaced(command: Command, home: Path) -> None:
    command("ca", "init", "--dir", "mine")
    before = (home / "mine" / "ca.key").read_bytes()
    assert "already has a CA" in command("ca", "init", "--dir", "mine", code=1).err
    assert (home / "mine" / "ca.key").read_bytes() == before


def test_key_and_certificate_of_different_cas_are_refused(command: Command, home: Path) -> None:
    command("ca", "init")
    command("ca", "init", "--dir", "other")
    (home / "ca" / "ca.key").write_bytes((home / "other" / "ca.key").read_bytes())
    assert "ca.key is not the key of ca.crt" in command.refused("ca", "issue", "x")
    (home / "ca" / "ca.key").write_text("nonsense")
    assert "cannot be read" in command.refused("ca", "issue", "x")
