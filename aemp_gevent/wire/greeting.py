# SPDX-License-Identifier: MIT
"""The greeting line, with which a node introduces itself: its ID and what it supports.

The first line each side sends, as a frozen value, in both directions::

    aemp;1;<node ID>;<auth methods accepted>;<framings understood>[;key=value]...

Not here: the nonce that follows it, and whether a greeting is acceptable to
*us* (our own node ID, nothing in common); both belong to
:mod:`aemp_gevent.wire.handshake`, which is the file to read next.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cached_property

from aemp_gevent.errors import GreetingError
from aemp_gevent.runtime.quoting import quoted

PROTOCOL = "aemp"
VERSION = "1"

# 4 KiB with the line end: Perl closes the connection on longer lines, and a
# stranger who has proved nothing must not be able to fill our memory.
MAX_LINE_BYTES = 4096

_CHARSET = "utf-8"

# A Perl string is a sequence of code points, here up to 255, each written as one byte. What Perl sends as UTF-8
# it treats as one character for each byte, in its port IDs as well.
_PERL_CHARSET = "latin-1"
# Perl's greetings have a dozen fields, and lists of four. Thousands of them would take fifty times as much
# memory as the line.
MAX_FIELDS = 64
MAX_LIST = 64

# The first five fields have fixed places; the others have names.
_FIXED_FIELDS = 5

# Greetings of our own library say "aemp_gevent-<version>".
_OUR_PROVIDER = "aemp_gevent-"

# Perl's own say "AE-<version>".
_PERL_PROVIDER = "AE-"

CALLS = "calls"
"""The key under which a node says which headers of calls it reads, besides those in full."""

SHORT_CALLS = "short"

TRACES = "traces"
"""The key under which a node says that it reads messages that carry a trace, of this version."""

TRACES_VERSION = "1"

FRAGMENTS = "fragments"
"""The key under which a node says that it reads large packets in fragments, of this version."""

FRAGMENTS_VERSION = "1"

SECOND_PATH = "second_path"
"""The key under which a node says that it knows the second path, of this version."""

SECOND_PATH_VERSION = "1"

_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")


@dataclass(frozen=True)
class Greeting:
    """The description that one side gives of itself before anything is proved.

    Lists are in order of preference, best first. A key without a value (``tls``
    instead of ``tls=1.0``) is kept with an empty one.

    Attributes:
        node: The node ID of the speaker.
        auth_methods: The methods of authentication it accepts.
        framings: The framings it understands.
        extras: The key and value pairs, in the order of the line. Unknown keys
            are ignored.
        protocol: The protocol word, always ``aemp`` in a greeting that was parsed.
        version: The protocol version, always ``1`` in a greeting that was parsed.

    Source:
        PROTOCOL.md, section 1.
    """

    node: str
    auth_methods: tuple[str, ...]
    framings: tuple[str, ...]
    extras: tuple[tuple[str, str], ...] = ()
    protocol: str = PROTOCOL
    version: str = VERSION

    def encode(self) -> bytes:
        """Build the line, without its line end.

        Only used for a greeting of ours: a peer's is hashed as it was
        received, because Perl sends the keys in another order each time. A test
        builds greetings of Perl.
        """
        fields = [
            _escape(self.protocol),
            _escape(self.version),
            _escape(self.node),
            ",".join(_escape(method, also=",") for method in self.auth_methods),
            ",".join(_escape(framing, also=",") for framing in self.framings),
        ]
        for key, value in self.extras:
            fields.append(f"{_escape(key, also='=')}={_escape(value)}" if value else _escape(key, also="="))
        is_perls = (self.provider or "").startswith(_PERL_PROVIDER)
        return ";".join(fields).encode(_PERL_CHARSET if is_perls else _CHARSET)

    def extra(self, key: str) -> str | None:
        """Return the value of a key, or None if the greeting has no such key.

        A key that was given twice has its last value.
        """
        return dict(self.extras).get(key)

    @property
    def provider(self) -> str | None:
        """The program at the other end and its version, such as ``AE-2.02``."""
        return self.extra("provider")

    @property
    def uniq(self) -> str | None:
        """The incarnation of the node: another one means the process was restarted."""
        return self.extra("uniq")

    @property
    def heartbeat(self) -> float | None:
        """The speaker's heartbeat timeout in seconds; None if it named none.

        A value that is not a positive number counts as missing: the key matters
        only between nodes of this library, and is not a reason to refuse a peer.
        """
        try:
            seconds = float(self.extra("heartbeat") or "")
        except ValueError:
            return None
        return seconds if 0 < seconds < math.inf else None

    @property
    def offers_tls(self) -> bool:
        """Whether the speaker supports TLS, which is used if the other side supports it, too."""
        return (self.extra("tls") or "").startswith("1.")

    @cached_property
    def reads_short_calls(self) -> bool:
        """Whether the speaker reads the short headers of calls."""
        return self.is_ours and self.extra(CALLS) == SHORT_CALLS

    @cached_property
    def reads_traces(self) -> bool:
        """Whether the speaker reads messages that carry a trace."""
        return self.is_ours and self.extra(TRACES) == TRACES_VERSION

    @cached_property
    def reads_fragments(self) -> bool:
        """Whether the speaker reads large packets in fragments, and may send them so."""
        return self.is_ours and self.extra(FRAGMENTS) == FRAGMENTS_VERSION

    @cached_property
    def knows_second_path(self) -> bool:
        """Whether the speaker knows the second path, and so the requests about it."""
        return self.is_ours and self.extra(SECOND_PATH) == SECOND_PATH_VERSION

    @cached_property
    def is_ours(self) -> bool:
        """Whether the other end runs this library (PROTOCOL.md, section 6)."""
        return (self.provider or "").startswith(_OUR_PROVIDER)

    @cached_property
    def is_of_another(self) -> bool:
        """Whether the other end says that it runs another program."""
        return self.provider is not None and not self.is_ours


def is_greeting_so_far(data: bytes) -> bool:
    """Return whether a greeting line may begin like this."""
    word = PROTOCOL.encode()
    return data.startswith(word[: len(data)])


def parse_greeting(line: bytes) -> Greeting:
    """Read a greeting line, given without its line end.

    Does not check whether the two sides fit together, except for protocol and
    version: a line of another protocol cannot be read at all.

    Raises:
        GreetingError: It is not a greeting, or not one of ``aemp`` version 1.
    """
    word, _, _ = line.partition(b";")
    _check_protocol(word)
    # Split first, unescape second: an escaped separator does not separate.
    fields = line.split(b";", MAX_FIELDS)
    if len(fields) > MAX_FIELDS:
        raise GreetingError(f"the greeting has more than {MAX_FIELDS} fields")
    if len(fields) < _FIXED_FIELDS:
        raise GreetingError(f"the greeting has {len(fields)} fields, and {_FIXED_FIELDS} are needed")
    charset = _charset_of(fields[_FIXED_FIELDS:])
    version, node = (_unescape(field, charset) for field in fields[1:3])
    if version != VERSION:
        raise GreetingError(f"the peer speaks version {quoted(version)} of the protocol, and we speak {VERSION}")
    _check_node(node)
    return Greeting(
        node=node,
        auth_methods=_parse_list(fields[3], charset),
        framings=_parse_list(fields[4], charset),
        extras=tuple(_parse_pair(field, charset) for field in fields[_FIXED_FIELDS:] if field),
    )


def _charset_of(fields: list[bytes]) -> str:
    """Return the charset of a greeting with these pairs; of several providers the last counts, as everywhere."""
    provider = ""
    for field in fields:
        key, value = _parse_pair(field, _PERL_CHARSET)  # in this charset every byte is a character
        if key == "provider":
            provider = value
    return _PERL_CHARSET if provider.startswith(_PERL_PROVIDER) else _CHARSET


def _check_protocol(word: bytes) -> None:
    if word == PROTOCOL.encode():
        return
    if word.startswith(b"aemp-"):
        # Perl uses aemp-dataconn: a plain stream between two nodes that share
        # the listener. It is not a mistake of the peer, so the text must not blame it.
        raise GreetingError(f"the peer asks for another protocol on this listener, {quoted(word)}")
    raise GreetingError(f"the peer does not speak aemp: its first word is {quoted(word)}")


def _check_node(node: str) -> None:
    if not node:
        raise GreetingError("the greeting has no node ID")
    # A '#' would make every port ID of this node ambiguous ('a#b#port'), and a
    # line end would forge log lines.
    if "#" in node or not node.isprintable():
        raise GreetingError(f"{quoted(node)} cannot be a node ID: it has a '#' or an unprintable character")


def _parse_list(field: bytes, charset: str) -> tuple[str, ...]:
    elements = field.split(b",", MAX_LIST)
    if len(elements) > MAX_LIST:
        raise GreetingError(f"the greeting has a list of more than {MAX_LIST} words")
    return tuple(_unescape(element, charset) for element in elements if element)


def _parse_pair(field: bytes, charset: str) -> tuple[str, str]:
    key, _, value = field.partition(b"=")
    return _unescape(key, charset), _unescape(value, charset)


def _escape(text: str, also: str = "") -> str:
    # '%' comes first, or it would escape the escapes. Line ends would end the
    # greeting early; 'also' holds the separators inside of one field.
    for character in "%;\r\n" + also:
        text = text.replace(character, f"%{ord(character):02x}")
    return text


def _unescape(field: bytes, charset: str) -> str:
    # Any %XX is read, although we and Perl write only a few: the bytes are
    # replaced before decoding, so an escaped UTF-8 sequence is decoded correctly.
    # A '%' without two digits after it stays as it is.
    # Not by sub(), which keeps all the pieces: a hundred bytes for each escape.
    raw, position = bytearray(), 0
    for match in _ESCAPE.finditer(field):
        raw += field[position : match.start()]
        raw.append(int(match[1], 16))
        position = match.end()
    raw += field[position:]
    try:
        return raw.decode(charset)
    except UnicodeDecodeError as error:
        raise GreetingError(f"the greeting is not UTF-8: {error}") from error
