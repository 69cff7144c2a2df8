# SPDX-License-Identifier: MIT
"""Schemas of servers: which messages a class takes, as JSON; and whether a new version takes those of an old one.

During a rolling upgrade, nodes with the old class call servers of the new one. That works if the new version takes at
least the arguments that the old one took, and answers with nothing that the old one would not have answered. So
:func:`assert_compatible` compares two sets of values in both cases: is one contained in the other? It goes by the
schemas of :mod:`aemp_gevent.otp.value_schemas`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from math import inf
from os import PathLike
from pathlib import Path
from typing import Any

from aemp_gevent.otp.marks import MarkedMethod
from aemp_gevent.otp.typed import TypedMethod, is_server, msgspec_for
from aemp_gevent.otp.value_schemas import ValueSchemas
from aemp_gevent.runtime.quoting import quoted

_NOTES = frozenset({"title", "description", "default", "examples", "uniqueItems", "discriminator"})
"""Keys of a schema that do not say which values there are. A set travels as a list, and repeated values do no harm."""

_NEVER = (-inf, 0)
_LENGTHS = ("Length", "Items", "Properties")
_EQUAL = ("format", "pattern")

_DECIMALS = {"type": "string", "format": "decimal"}


def schema(server: type[Any]) -> str:
    """Return the messages that servers of a class take, as JSON with a JSON Schema for each argument and result.

    The text is the same each time, so that you can keep it in a file, and compare with it later; see
    :func:`assert_compatible`. Needs msgspec, but not ``typed=True``.

    Raises:
        ImportError: msgspec is not installed.
        TypeError: It is not a class of servers, or an annotation cannot be evaluated or cannot travel.
    """
    return json.dumps(_described(server), indent=2) + "\n"


def assert_compatible(server: type[Any], former: str | PathLike[str]) -> None:
    """Assert that nodes with an older version of a class can use servers of this one, as in a rolling upgrade.

    For a test of yours. New methods, and new parameters with defaults, are compatible. But if a new node uses them on a
    server of an old node, the call fails: first upgrade the servers.

    Args:
        server: The class.
        former: A file with the older version's :func:`schema`.

    Raises:
        AssertionError: They are not compatible; it lists all the differences that matter.
        OSError, ValueError: The file cannot be read, or does not have a schema.
    """
    text = Path(former).read_text(encoding="utf-8")
    try:
        old = json.loads(text)
        methods = dict(old["methods"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{former} does not have what schema() returns: {quoted(error)}") from error
    new = _described(server)
    found = [
        f"{name}: {problem}"
        for name, method in methods.items()
        for problem in _problems(Schemas(old["$defs"], new["$defs"]), method, new["methods"].get(name))
    ]
    if found:
        listed = "\n".join(f"- {each}" for each in found)
        raise AssertionError(f"{server.__name__} is not compatible with {former}:\n{listed}")


def _described(server: type[Any]) -> dict[str, Any]:
    if not is_server(server):
        raise TypeError(f"schema() takes a class of servers, not {quoted(server)}")
    spec = msgspec_for("schema()")
    marks: dict[str, MarkedMethod] = server._aemp_marks
    methods = {name: TypedMethod(server, marks[name]) for name in sorted(marks)}
    types: list[Any] = []
    for method in methods.values():
        types += [*method.types, method.rest, method.result]
    made = ValueSchemas(_schema_of_other)
    try:
        left = iter([made.of(kind) for kind in spec.inspect.multi_type_info(types)])
    except TypeError as error:
        raise TypeError(f"{server.__name__}: {error}") from error
    return {
        "server": server.__name__,
        "methods": {name: _described_method(marks[name], method, left) for name, method in methods.items()},
        "$defs": made.definitions,
    }


def _described_method(mark: MarkedMethod, method: TypedMethod, schemas: Iterator[Any]) -> dict[str, Any]:
    parameters = [
        {"name": each.name, "required": each.default is each.empty, "schema": next(schemas)}
        for each in method.parameters
    ]
    rest, result = next(schemas), next(schemas)
    found: dict[str, Any] = {"kind": mark.kind, "parameters": parameters}
    if method.rest is not None:
        found["more"] = rest
    if mark.kind == "call":
        found["result"] = result
    return found


def _schema_of_other(kind: Any) -> dict[str, Any]:
    if is_server(kind):
        return {"type": "string", "format": "port"}
    raise TypeError(f"values of {quoted(kind)} cannot travel")


def _problems(schemas: Schemas, old: dict[str, Any], new: dict[str, Any] | None) -> Iterator[str]:
    """Return what an older node could not do."""
    if new is None:
        yield "was removed"
        return
    if old["kind"] != new["kind"]:
        yield f"was a {old['kind']}, and is a {new['kind']}"
    before, after = old["parameters"], new["parameters"]
    for index, parameter in enumerate(before):
        name = parameter["name"]
        if index >= len(after):
            if "more" not in new:
                yield f"the argument {quoted(name)} was removed"
                continue
            taken = new["more"]
        else:
            taken = after[index]["schema"]
            if after[index]["required"] and not parameter["required"]:
                yield f"the argument {quoted(name)} has no default any more"
        why = schemas.why_not(parameter["schema"], taken)
        if why:
            yield f"the argument {quoted(name)} is narrower: {why}"
    for parameter in after[len(before) :]:
        if parameter["required"]:
            yield f"the new argument {quoted(parameter['name'])} has no default"
    if "more" in old:
        targets = [each["schema"] for each in after[len(before) :]]
        if "more" not in new:
            yield "it does not take any number of arguments any more"
        else:
            targets.append(new["more"])
        for target in targets:
            why = schemas.why_not(old["more"], target)
            if why:
                yield f"its further arguments are narrower: {why}"
    if "result" in old and "result" in new:
        why = schemas.swapped().why_not(new["result"], old["result"])
        if why:
            yield f"the result is wider: {why}"


class Schemas:
    """Compares schemas: the values of one of them, the inner one, with what another one, the outer one, takes.

    Args:
        inner: The definitions that inner schemas refer to.
        outer: The definitions that outer schemas refer to.
    """

    def __init__(
        self, inner: dict[str, Any], outer: dict[str, Any], seen: frozenset[tuple[str, str]] = frozenset()
    ) -> None:
        self._inner = inner
        self._outer = outer
        self._seen = seen
        """The pairs that are being compared, of types that have themselves inside."""

    def swapped(self) -> Schemas:
        """Return what compares the other way round."""
        return Schemas(self._outer, self._inner)

    def why_not(self, inner: Any, outer: Any) -> str:
        """Return why a value of the inner schema may not be one of the outer; ``""`` if each is."""
        if "$ref" in inner or "$ref" in outer:
            pair = json.dumps(inner), json.dumps(outer)
            if pair in self._seen:
                return ""
            inside = Schemas(self._inner, self._outer, self._seen | {pair})
            return inside.why_not(_resolved(inner, self._inner), _resolved(outer, self._outer))
        if not outer.keys() - _NOTES:
            return ""  # takes anything
        if "enum" in inner and len(inner["enum"]) > 1:
            inner = {"anyOf": [{"enum": [value]} for value in inner["enum"]]}
        if "anyOf" in inner:
            whys = (self.why_not(each, outer) for each in inner["anyOf"])
            return next((why for why in whys if why), "")
        if "anyOf" in outer:
            taken = any(not self.why_not(inner, each) for each in outer["anyOf"])
            return "" if taken else f"{_shown(inner)} is not one of {_shown(outer)}"
        if "enum" in inner:
            [value] = inner["enum"]
            if "enum" in outer:
                return "" if _is_in(value, outer["enum"]) else f"{quoted(value)} is not in {_shown(outer)}"
            return "" if _has(outer, value) else f"{quoted(value)} is not in {_shown(outer)}"
        if "enum" in outer:
            return f"{_shown(inner)} is more than {_shown(outer)}"
        kinds = _kind(inner), _kind(outer)
        if kinds[0] in ("integer", "number") and {**outer, "title": ""} == {**_DECIMALS, "title": ""}:
            return ""  # a Decimal is also made of a number
        if kinds[0] != kinds[1] and kinds != ("integer", "number"):
            return f"{_shown(inner)} is not {_shown(outer)}"
        return _why_not_bounds(inner, outer) or self._why_not_inside(inner, outer)

    def _why_not_inside(self, inner: dict[str, Any], outer: dict[str, Any]) -> str:
        if inner.get("type") == "array":
            return self._why_not_items(inner, outer)
        if inner.get("type") != "object":
            return ""
        names = {"type": "string"}
        why = self.why_not(inner.get("propertyNames", names), outer.get("propertyNames", names))
        if why:
            return f"its keys: {why}"
        properties = inner.get("properties", {})
        missing = [name for name in outer.get("required", ()) if name not in inner.get("required", ())]
        if missing:
            return f"the field {quoted(missing[0])} is required"
        for name, taken in outer.get("properties", {}).items():
            why = self.why_not(properties[name], taken) if name in properties else ""
            if why:
                return f"the field {quoted(name)}: {why}"
        others = outer.get("additionalProperties", {})
        for name in properties.keys() - outer.get("properties", {}).keys():
            why = "it is unknown" if others is False else self.why_not(properties[name], _as_schema(others))
            if why:
                return f"the field {quoted(name)}: {why}"
        if "additionalProperties" in inner and inner["additionalProperties"] is not False and others is not False:
            return self.why_not(_as_schema(inner["additionalProperties"]), _as_schema(others))
        return ""

    def _why_not_items(self, inner: dict[str, Any], outer: dict[str, Any]) -> str:
        wanted = outer.get("prefixItems", [])
        # How many there can be was compared. Those that are alike need to be tried in each place of the outer one.
        given = inner.get("prefixItems") or [_as_schema(inner.get("items", {}))] * (len(wanted) + 1)
        for index, item in enumerate(given):
            taken = wanted[index] if index < len(wanted) else _as_schema(outer.get("items", {}))
            why = self.why_not(item, taken)
            if why:
                return f"item {index}: {why}" if len(given) > 1 else why
        return ""


def _as_schema(found: Any) -> dict[str, Any]:
    """Return a schema in place of True, which takes anything."""
    return found if isinstance(found, dict) else {}


def _resolved(found: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in found:
        found = definitions[found["$ref"].rpartition("/")[2]]
    return found


def _kind(found: dict[str, Any]) -> Any:
    """Return the type of values as they travel."""
    return "bytes" if "contentEncoding" in found else found.get("type")


def _is_in(value: Any, values: list[Any]) -> bool:
    return any(value == each and isinstance(value, bool) == isinstance(each, bool) for each in values)


def _has(outer: dict[str, Any], value: Any) -> bool:
    """Return whether a schema without alternatives takes one plain value."""
    kinds = {int: "integer", float: "number", str: "string", bool: "boolean", type(None): "null"}
    kind = kinds.get(type(value))
    if kind != _kind(outer) and (kind, _kind(outer)) != ("integer", "number"):
        return False
    if isinstance(value, str):
        return not _why_not_bounds({"minLength": len(value), "maxLength": len(value)}, outer)
    return kind in ("boolean", "null") or not _why_not_bounds({"minimum": value, "maximum": value}, outer, value)


def _why_not_bounds(inner: dict[str, Any], outer: dict[str, Any], value: Any = None) -> str:
    """Return which bound of the outer schema the inner one does not have, or not so narrowly.

    Args:
        inner: The inner one.
        outer: The outer one.
        value: The only number of the inner schema; None: it has others.
    """
    for key in _EQUAL:
        if key in outer and inner.get(key) != outer[key]:
            return _bound(key, inner, outer)
    for name in _LENGTHS:
        if inner.get(f"min{name}", 0) < outer.get(f"min{name}", 0):
            return _bound(f"min{name}", inner, outer)
        if f"max{name}" in outer and inner.get(f"max{name}", inf) > outer[f"max{name}"]:
            return _bound(f"max{name}", inner, outer)
    for inclusive, exclusive, sign in (("minimum", "exclusiveMinimum", 1), ("maximum", "exclusiveMaximum", -1)):
        least = max((sign * inner[inclusive], 0) if inclusive in inner else _NEVER, _exclusive(inner, exclusive, sign))
        for key in (inclusive, exclusive):
            if key in outer and least < (sign * outer[key], int(key == exclusive)):
                return _bound(key, inner, outer)
    multiple = outer.get("multipleOf")
    if multiple is not None:
        steps = inner.get("multipleOf") if value is None else value
        if steps is None or steps % multiple:
            return _bound("multipleOf", inner, outer)
    return ""


def _exclusive(found: dict[str, Any], key: str, sign: int) -> tuple[float, int]:
    return (sign * found[key], 1) if key in found else _NEVER


def _bound(key: str, inner: dict[str, Any], outer: dict[str, Any]) -> str:
    was = "" if inner.get(key) is None else f", and was {quoted(inner[key])}"
    return f"{key} is {quoted(outer[key])}{was}"


def _shown(found: dict[str, Any]) -> str:
    return json.dumps({key: value for key, value in found.items() if key not in _NOTES})
