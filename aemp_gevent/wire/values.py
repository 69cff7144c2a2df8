# SPDX-License-Identifier: MIT
"""Rules that say which values may travel, and name the first value in a message that may not.

Encoders are fast but do not check everything: msgpack writes a tuple as a map key
that decoders refuse, JSON silently turns the key 1 into "1". Bad data must
raise where it is sent, with a text that names the place, and must never reach
the peer, which would drop the link because of it.

:meth:`Rules.has_only_plain` is the fast check of every message with a container:
it accepts exact built-in types only, and builds nothing but a list of containers.
:meth:`Rules.find_fault` is the slow walk after the fast check or the encoder
refused a message: it accepts subclasses, and makes the error text.

Not here: how values become bytes (:mod:`~.framing_msgpack`,
:mod:`~.framing_json`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from aemp_gevent.errors import UnencodableMessageError
from aemp_gevent.runtime.quoting import of_type, quoted
from aemp_gevent.wire.limits import MAX_NUMBER_KEYS
from aemp_gevent.wire.vocabulary import CALL, KIL0, KIL1, SPAWN, VIA

# The packet itself is the first level. msgpack's Packer stops at 511, JSON::XS
# and CBOR::XS at 512; half of that leaves room for a packet inside another
# packet (``via``), and for the recursion of json's C encoder on a deep stack.
MAX_NESTING = 256

_MAX_TAG = 50

# Requests to a node port that carry what their sender called, and where in the packet that begins: with a tag, the name
# of a function, or the first word of a reason.
_CALLED_AT = {CALL: 4, SPAWN: 3, KIL0: 3, KIL1: 3}

# What has elements. Exact types for the gate; its subclasses are found by the walk.
_CONTAINERS = frozenset({list, tuple, dict})


@dataclass(frozen=True)
class Rules:
    """The values that one framing can carry.

    Attributes:
        framing: Its name, for error texts.
        scalars: The types without elements.
        keys: The types of map keys.
        objection: Returns what is wrong with the value of a scalar (NaN, for example), or
            None. Called only after an encoder failed.
        forbidden: Types that are refused although they are subclasses of
            something allowed.
    """

    framing: str
    scalars: frozenset[type]
    keys: frozenset[type]
    objection: Callable[[object], str | None]
    forbidden: tuple[type, ...] = ()

    def has_only_plain(self, packet: list[Any] | tuple[Any, ...]) -> bool:
        """Return whether everything in a packet is of an allowed built-in type.

        False is not final: :meth:`find_fault` accepts more. Depth first, so
        that a list that contains itself is noticed at once, and without recursion,
        because senders may be deep in their stack already.
        """
        scalars, keys = self.scalars, self.keys
        todo: list[tuple[Any, int]] = [(packet, 1)]
        while todo:
            container, depth = todo.pop()
            if depth > MAX_NESTING:
                return False
            if type(container) is dict:
                if len(container) > MAX_NUMBER_KEYS and _has_many_numbers(container):
                    return False
                for key in container:
                    if type(key) not in keys:
                        return False
                container = container.values()
            # Plain loops: set(map(type, container)) wins only from some ten elements on,
            # and takes twice as long for the small maps that messages are made of.
            for element in container:
                kind = type(element)
                if kind not in scalars:
                    if kind not in _CONTAINERS:
                        return False
                    todo.append((element, depth + 1))
        return True

    def find_fault(self, packet: list[Any] | tuple[Any, ...]) -> UnencodableMessageError | None:
        """Return an error that names the first value which cannot travel, or None.

        Places are counted as the caller of ``snd``, ``call`` or ``spawn`` sees them: the arguments behind a
        tag from 1; without a tag the elements from 0.
        """
        if len(packet) > 4 and _is_request(packet, VIA) and _is(packet[4], list):
            fault = self.find_fault(packet[4])
            if fault is not None:
                return fault
        begin = next((at for request, at in _CALLED_AT.items() if _is_request(packet, request)), 1)
        tag = packet[begin] if len(packet) > begin else None
        for number, element in enumerate(packet):
            where = f"element {number - begin}" if number >= begin else f"part {number} of the packet"
            if number > begin and _is(tag, str):
                where = f"argument {number - begin} of {quoted(tag, _MAX_TAG)}"
            fault = self._find_in(where if number else "the port name", element)
            if fault is not None:
                return fault
        return None

    def refuse(self, packet: list[Any] | tuple[Any, ...], cause: Exception | None = None) -> None:
        """Raise the error that :meth:`find_fault` returns, if it returns one.

        Raises:
            UnencodableMessageError: A value cannot travel.
        """
        fault = self.find_fault(packet)
        if fault is not None:
            try:
                raise fault from cause
            finally:
                del fault  # or it would refer to itself, and the packet would live on for a while

    def _find_in(self, where: str, element: object) -> UnencodableMessageError | None:
        # The path is empty for the element itself; the packet is the level above it.
        todo: list[tuple[str, object, int]] = [("", element, 2)]
        while todo:
            path, value, depth = todo.pop()
            if _is_container(value) and depth > MAX_NESTING:
                # Without the path, which has hundreds of steps.
                return UnencodableMessageError(where, f"is nested deeper than {MAX_NESTING} levels, or contains itself")
            why = self._wrong_with(value)
            if why is not None:
                return UnencodableMessageError(where + path, why)
            # Backwards, because the end of the list is looked at first.
            todo += [(f"{path}, {place}", inner, depth + 1) for place, inner in reversed(list(_elements(value)))]
        return None

    def _wrong_with(self, value: Any) -> str | None:
        if _is(value, dict) and not _is(value, self.forbidden):
            if _has_many_numbers(value):
                return f"is a map with more than {MAX_NUMBER_KEYS} keys that are numbers; make them texts"
            return next(filter(None, map(self._wrong_with_key, value)), None)
        if _is_container(value) and not _is(value, self.forbidden):
            return None
        if not _is(value, tuple(self.scalars)) or _is(value, self.forbidden):
            return f"is {of_type(value)}, which {self.framing} cannot carry"
        return self.objection(value)

    def _wrong_with_key(self, key: object) -> str | None:
        if not _is(key, tuple(self.keys)) or _is(key, self.forbidden):
            return f"has the key {quoted(key)}, {of_type(key)}, which {self.framing} cannot carry as a key"
        objection = self.objection(key)
        return None if objection is None else f"has the key {quoted(key)}, which {objection}"


def _is(value: object, kinds: type | tuple[type, ...]) -> bool:
    """Return whether a value is of some type. Not isinstance(), which asks proxies for their class: they may raise."""
    return issubclass(type(value), kinds)


def _is_request(packet: list[Any] | tuple[Any, ...], name: str) -> bool:
    # Not by equality of lists: elements may be anything, arrays for instance.
    return len(packet) > 1 and all(_is(word, str) for word in packet[:2]) and tuple(packet[:2]) == ("", name)


def lone_surrogate(value: Any) -> str | None:
    """Return an objection to text with half of a surrogate pair, as ``os.fsdecode`` makes them; else None."""
    if _is(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            return f"has a lone surrogate at position {error.start}, which UTF-8 cannot carry"
    return None


def _has_many_numbers(value: dict[Any, Any]) -> bool:
    """Return whether more keys are numbers than a receiver accepts, as an attacker could have chosen them."""
    if len(value) <= MAX_NUMBER_KEYS:
        return False
    return sum(1 for key in value if not _is(key, (str, bytes))) > MAX_NUMBER_KEYS


def _is_container(value: object) -> bool:
    return _is(value, (list, tuple, dict))


def _elements(value: Any) -> Iterator[tuple[str, object]]:
    if _is(value, dict):
        for key, element in value.items():
            yield f"key {quoted(key)}", element
    elif _is(value, (list, tuple)):
        for number, element in enumerate(value):
            yield f"element {number}", element
