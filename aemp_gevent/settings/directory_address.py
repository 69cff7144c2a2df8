# SPDX-License-Identifier: MIT
"""Parses the setting ``directory``, which says where the directory of a network is kept.

For etcd that is an address: its hosts, the prefix of all keys, the user's name and password, and files for TLS. Their
meanings and defaults are here. :mod:`aemp_gevent.directory.etcd.client` makes the connections,
and :mod:`aemp_gevent.directory.etcd.keyspace` writes the keys.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from aemp_gevent.addresses.endpoints import Endpoint

EMBEDDED = "embedded"
"""The setting for a directory that the nodes keep themselves."""

DEFAULT_PORT = 2379
DEFAULT_PREFIX = "/aemp"

_FILES = ("ca", "cert", "key")
_FORM = "write 'etcd://host:2379,host2:2379/prefix', or etcds:// for TLS"
_NO_HOST = f"one of its hosts or ports is invalid; {_FORM}"

# Everything from the first colon to the last @, even in an invalid text: better too much than a part of a password.
_PASSWORD = re.compile(r"(:/+[^:@]*:).*(?=@)", re.DOTALL)


class DirectoryAddress(str):
    """The setting's text. Its ``repr`` shows no password."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(_PASSWORD.sub(r"\1…", str(self)))


@dataclass(frozen=True, kw_only=True)
class EtcdAddress:
    """An etcd cluster, and the prefix in it that belongs to one network of nodes.

    Attributes:
        endpoints: Where its members serve clients. Hosts may be names.
        prefix: The beginning of all keys, without a slash at its end.
        tls: Whether to use TLS, and to verify the certificates of the members.
        user: The name of the user, or None if authentication is off.
        password: The user's password.
        ca: The file with the CA certificates for the members, or None for the system's.
        cert: The file with the node's own certificate, or None.
        key: The file with its key, or None if ``cert`` has it as well.
    """

    endpoints: tuple[Endpoint, ...]
    prefix: str = DEFAULT_PREFIX
    tls: bool = False
    user: str | None = None
    password: str = field(default="", repr=False)
    ca: str | None = None
    cert: str | None = None
    key: str | None = None


def parse_directory(text: str) -> EtcdAddress | None:
    """Return the etcd cluster that a ``directory`` setting names; None: the embedded directory.

    Raises:
        ValueError: It is neither; the text says what is wrong, without anything that may be a password.
    """
    if text == EMBEDDED:
        return None
    scheme, _, rest = text.partition("://")
    if scheme not in {"etcd", "etcds"} or not rest:
        raise ValueError(f"it is 'embedded', or where etcd is: {_FORM}")
    try:
        parts = urlsplit("//" + rest)
    except ValueError:  # not its text, which shows more than it should
        raise ValueError(_NO_HOST) from None
    userinfo, _, hosts = parts.netloc.rpartition("@")
    user, _, password = userinfo.partition(":")
    if userinfo and not user:
        raise ValueError("there is a password without a user before the '@'; write user:password@host")
    if parts.fragment or "@" in parts.path:
        raise ValueError("special characters in a user, password or prefix are written as %23 for '#', %2F for '/'")
    options = _options(parts.query)
    if options and scheme == "etcd":
        raise ValueError(f"{', '.join(options)}: certificates are for TLS; write etcds://")
    if "key" in options and "cert" not in options:
        raise ValueError("there is a key without a certificate; write ?cert=FILE&key=FILE")
    return EtcdAddress(
        endpoints=tuple(_endpoint(host) for host in hosts.split(",")),
        prefix=unquote(parts.path).rstrip("/") or DEFAULT_PREFIX,
        tls=scheme == "etcds",
        user=unquote(user) or None,
        password=unquote(password),
        **options,
    )


def _endpoint(text: str) -> Endpoint:
    try:
        parts = urlsplit("//" + text)
        host, port = parts.hostname, DEFAULT_PORT if parts.port is None else parts.port
    except ValueError:
        host, port = None, 0
    if not host or not port or any(character.isspace() for character in text):
        raise ValueError(_NO_HOST)
    return Endpoint(host, port)


def _options(query: str) -> dict[str, str]:
    pairs = parse_qsl(query, keep_blank_values=True)
    options = dict(pairs)
    if len(options) < len(pairs) or not all(name in _FILES and path for name, path in pairs):
        raise ValueError("after the '?' come files: ca=FILE&cert=FILE&key=FILE, each at most once")
    return options
