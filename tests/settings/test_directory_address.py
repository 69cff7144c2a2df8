# SPDX-License-Identifier: MIT
"""The setting ``directory``: its forms, and that it never shows a password."""

from __future__ import annotations

import pytest

from aemp_gevent.addresses.endpoints import Endpoint
from aemp_gevent.errors import InvalidSettingError
from aemp_gevent.settings.directory_address import DirectoryAddress, EtcdAddress, parse_directory
from aemp_gevent.settings.fields import Settings
from aemp_gevent.settings.sources import make_settings

HOST = (Endpoint("h", 2379),)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        pytest.param("embedded", None, id="embedded"),
        pytest.param("etcd://h", EtcdAddress(endpoints=HOST, prefix="/aemp"), id="shortest"),
        pytest.param("etcd://h/", EtcdAddress(endpoints=HOST, prefix="/aemp"), id="slash"),
        pytest.param("etcd://h:1/a/b/", EtcdAddress(endpoints=(Endpoint("h", 1),), prefix="/a/b"), id="prefix"),
        pytest.param(
            "etcd://h:1,10.0.0.1,[::1]:3,[::2]/p",
            EtcdAddress(
                endpoints=(Endpoint("h", 1), Endpoint("10.0.0.1", 2379), Endpoint("::1", 3), Endpoint("::2", 2379)),
                prefix="/p",
            ),
            id="members",
        ),
        pytest.param(
            "etcds://me:p%40ss%2F:%23@h/p%C3%A4?ca=/c&cert=/d&key=/e",
            EtcdAddress(
                endpoints=HOST, prefix="/pä", tls=True, user="me", password="p@ss/:#", ca="/c", cert="/d", key="/e"
            ),
            id="tls-and-user",
        ),
        pytest.param("etcd://me@h", EtcdAddress(endpoints=HOST, user="me"), id="no-password"),
    ],
)
def test_addresses_are_read(text: str, address: EtcdAddress | None) -> None:
    assert parse_directory(text) == address


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it is 'embedded', or where etcd is"),
        ("Embedded", "it is 'embedded', or where etcd is"),
        ("etcd:/h", "etcd://host:2379,host2:2379/prefix"),
        ("etcd://", "it is 'embedded'"),
        ("http://h", "it is 'embedded'"),
        ("etcd:///p", "one of its hosts"),
        ("etcd://h,/p", "one of its hosts"),
        ("etcd://h:x", "one of its hosts"),
        ("etcd://h:0", "one of its hosts"),
        ("etcd://h:70000", "one of its hosts"),
        ("etcd://[::1", "one of its hosts"),
        ("etcd://h h", "one of its hosts"),
        ("etcd://:secret@h", "without a user"),
        ("etcd://me:sec#ret@h", "special characters"),
        ("etcd://me:sec/ret@h", "special characters"),
        ("etcd://h?ca=/c", "etcds://"),
        ("etcds://h?key=/k", "without a certificate"),
        ("etcds://h?ca=", "after the '\\?' come files"),
        ("etcds://h?ca=a&ca=b", "after the '\\?' come files"),
        ("etcds://h?password=secret", "after the '\\?' come files"),
        ("etcd://me:secret@h:x", "one of its hosts"),
    ],
)
def test_bad_addresses_are_refused_without_their_password(text: str, why: str) -> None:
    with pytest.raises(InvalidSettingError, match=why) as caught:
        make_settings({"directory": text, "secret": "x"}, {"AEMP_CONFIG": "/dev/null"})
    shown = str(caught.value)
    assert not any(part in shown for part in ("secret@", "sec/", "sec#", "ret@"))


PASSWORDS = ["etcd://me:secret@h", "etcds://me:secret@h,i:1/p?ca=/c", "etcd://me:se@cret@h", "etcd://me:se:cret/@h"]


@pytest.mark.parametrize("text", PASSWORDS)
def test_passwords_are_shown_nowhere(text: str) -> None:
    shown = repr(DirectoryAddress(text)) + repr(Settings(directory=DirectoryAddress(text)))
    assert "cret" not in shown and "me:…@h" in shown
    assert str(DirectoryAddress(text)) == text


def test_parsed_addresses_show_no_password() -> None:
    assert "secret" not in repr(parse_directory("etcd://me:secret@h"))


def test_the_environment_names_the_directory() -> None:
    environ = {"AEMP_CONFIG": "/dev/null", "AEMP_DIRECTORY": "etcd://me:secret@h/p"}
    settings = make_settings({"secret": "x"}, environ)
    assert settings.directory == "etcd://me:secret@h/p"
    assert "secret@" not in repr(settings)
    assert make_settings({"secret": "x"}, {"AEMP_CONFIG": "/dev/null"}).directory == "embedded"
