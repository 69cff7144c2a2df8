# SPDX-License-Identifier: MIT
"""``import-perl``: the files of AnyEvent::MP's ``aemp`` become a profile file; the rest is reported."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from aemp_gevent.settings.sources import make_settings
from tests.cli.helpers import Command
from tests.support.authority import shared_certificate

# As AnyEvent::MP 2.02's aemp writes it: JSON::XS, pretty.
WRITTEN: dict[str, Any] = {
    "version": 1,
    "secret": "hmm",
    "seeds": ["10.0.0.1:4040", "doomed"],
    "profile": {
        "server": {"binds": ["*:*", "*:4041"], "parent": "base", "nodeid": "srv/%n", "services": ["My::Counter::init"]},
        "base": {"monitor_timeout": "20", "secure": 1, "seeds": ["doomed:5000"]},
        "anon": {"nodeid": "anon/"},
        "numbered": {"nodeid": "worker/"},
        "empty": {},
    },
}


@pytest.fixture
def perl(home: Path) -> Path:
    path = home / ".perl-anyevent-mp"
    path.write_text(json.dumps(WRITTEN, indent=3))
    return path


def test_everything_with_a_counterpart_is_taken(command: Command, perl: Path) -> None:
    command("import-perl")
    assert command.config == {
        "secret": "hmm",
        "seeds": ["10.0.0.1:4040", "doomed"],
        "profiles": {
            "server": {"binds": ["*:0", "*:4041"], "parent": "base", "nodeid": "srv/%n"},
            "base": {"monitor_timeout": 20.0, "secure": True, "seeds": ["doomed:5000"]},
            "anon": {},
            "numbered": {"nodeid": "worker/%u"},
            "empty": {},
        },
    }
    settings = make_settings({}, profile="server")
    assert (settings.seeds, settings.monitor_timeout, settings.binds) == (("doomed:5000",), 20.0, ("*:0", "*:4041"))
    assert perl.read_text() == json.dumps(WRITTEN, indent=3), "it is only read"


def test_everything_else_is_reported_with_its_reason(command: Command, perl: Path) -> None:
    content = {**WRITTEN, "connect_interval": 2, "framing_format": ["json"], "autocork": 1, "frobnicate": 1}
    content["profile"] = {**content["profile"], "bad": {"binds": ["a:b:c"], "monitor_timeout": "soon", "parent": 5}}
    perl.write_text(json.dumps(content))
    rows = json.loads(command("import-perl", "--json").out)
    left_out = {(row["profile"], row["setting"]): row["what"] for row in rows if not row["taken"]}
    assert set(left_out) == {
        (None, "connect_interval"),
        (None, "framing_format"),
        (None, "autocork"),
        (None, "frobnicate"),
        ("server", "services"),
        ("anon", "nodeid"),
        ("bad", "binds"),
        ("bad", "monitor_timeout"),
        ("bad", "parent"),
    }
    assert left_out["server", "services"] == "left out: Perl code cannot run here: My::Counter::init"
    assert "unknown setting" in left_out[None, "frobnicate"]


def test_secret_and_key_are_not_shown(command: Command, perl: Path) -> None:
    pem = shared_certificate().pem()
    perl.write_text(json.dumps({"secret": "do not tell", "cert": pem}))
    result = command("import-perl")
    assert command.config == {"secret": "do not tell", "cert": pem}
    assert "do not tell" not in result.out
    assert "BEGIN" not in result.out


def test_certificate_that_cannot_be_used_is_left_out(command: Command, perl: Path) -> None:
    perl.write_text(json.dumps({"cert": "-----BEGIN nonsense"}))
    (row,) = json.loads(command("import-perl", "--json").out)
    assert (row["taken"], "private keys" in row["what"]) == (False, True)


def test_what_is_set_here_already_stays_unless_it_is_to_be_replaced(command: Command, perl: Path) -> None:
    command("setsecret", "ours", "profile", "base", "set", "secure", "yes", "set", "monitor_timeout", "7")
    assert "replace that with --overwrite" in command("import-perl").out
    assert command.config["secret"] == "ours"
    assert command.config["profiles"]["base"]["monitor_timeout"] == 7
    assert command.config["profiles"]["base"]["seeds"] == ["doomed:5000"]
    command("import-perl", "--overwrite")
    assert command.config["secret"] == "hmm"
    assert command.config["profiles"]["base"]["monitor_timeout"] == 20


def test_rehearsal_tells_the_same_and_writes_nothing(command: Command, perl: Path, home: Path) -> None:
    before = sorted(path.name for path in home.iterdir())
    told = command("import-perl", "--dry-run").out
    assert sorted(path.name for path in home.iterdir()) == before
    done = command("import-perl").out
    assert done.startswith(told)


def test_file_may_be_named(command: Command, perl: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    perl.rename(home / "elsewhere")
    assert ".perl-anyevent-mp: No such file" in command.refused("import-perl")
    command("import-perl", "elsewhere")
    monkeypatch.setenv("PERL_ANYEVENT_MP_RC", str(home / "elsewhere"))
    assert command("import-perl").code == 0


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{ # relaxed\n}", "it is not JSON: .*remove comments and commas before closing brackets"),
        ("[]", "it must be an object"),
        ('{"profile": []}', "it must be an object"),
        ('{"profile": {"p": 1}}', "it must be an object"),
        ('{"profile": {"p": {"parent": "nix"}}}', "the parent of profile 'p' is 'nix', which does not exist"),
    ],
)
def test_what_aemp_would_not_have_written_is_refused(command: Command, perl: Path, content: str, why: str) -> None:
    perl.write_text(content)
    result = command("import-perl", code=2)
    assert re.search(why, result.err)
