# SPDX-License-Identifier: MIT
"""Schemas of servers: which messages a class takes, as JSON; and whether a new version takes those of an old one.

During a rolling upgrade, nodes with the old class call servers of the new one. That works if the new version takes at
least the arguments that the old one took, and answers with nothing that the old one would not have answered. So
:func:`assert_compatible` compares two sets of values in both cases: is one contained in the other? It goes by the
schemas, which are JSON Schemas as msgspec makes them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any

from aemp_gevent.otp.marks import MarkedMethod
from aemp_gevent.otp.typed import TypedMethod, is_server, msgspec_for
from aemp_gevent.runtime.quoting import quoted

_NOTES = frozenset({"title", "description", "default", "examples", "uniqueItems", "discriminator"})
"""Keys of a schema that do not say which values there are. A set travels as a list, and repeated values do no harm."""

_AT_LEAST = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_AT_MOST = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_EQUAL = ("format", "pattern", "contentEncoding", "multipleOf")


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
    try:
        schemas, definitions = spec.json.schema_components(
            types, schema_hook=_schema_of_other, ref_template="#/$defs/{name}"
        )
    except TypeError as error:
        raise TypeError(f"{server.__name__}: {error}") from error
    left = iter(schemas)
    return {
        "server": server.__name__,
        "methods": {name: _described_method(marks[name], method, left) for name, method in methods.items()},
        "$defs": definitions,
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

    def __init__(self, inner: dict[str, Any], outer: dict[str, Any]) -> None:
        self._inner = inner
        self._outer = outer
        self._seen: set[tuple[str, str]] = set()

    def swapped(self) -> Schemas:
        """Return what compares the other way round."""
        return Schemas(self._outer, self._inner)

    def why_not(self, inner: Any, outer: Any) -> str:
        """Return why a value of the inner schema may not be one of the outer; ``""`` if each is."""
        references = json.dumps(inner), json.dumps(outer)
        if "$ref" in inner or "$ref" in outer:
            if references in self._seen:  # of a type that has itself inside; this pair is being compared
                return ""
            self._seen.add(references)
        inner, outer = _resolved(inner, self._inner), _resolved(outer, self._outer)
        if not outer.keys() - _NOTES:
            return ""  # takes anything
        if "anyOf" in inner:
            whys = (self.why_not(each, outer) for each in inner["anyOf"])
            return next((why for why in whys if why), "")
        if "anyOf" in outer:
            taken = any(not Schemas(self._inner, self._outer).why_not(inner, each) for each in outer["anyOf"])
            return "" if taken else f"{_shown(inner)} is not one of {_shown(outer)}"
        if "enum" in inner or "const" in inner:
            values = inner.get("enum", [inner.get("const")])
            missing = [value for value in values if not _has(outer, value)]
            return f"{missing} is not in {_shown(outer)}" if missing else ""
        if "enum" in outer or "const" in outer:
            return f"{_shown(inner)} is more than {_shown(outer)}"
        kinds = inner.get("type"), outer.get("type")
        if kinds[0] != kinds[1] and kinds != ("integer", "number"):
            return f"{_shown(inner)} is not {_shown(outer)}"
        return self._why_not_bounds(inner, outer) or self._why_not_inside(inner, outer)

    def _why_not_bounds(self, inner: dict[str, Any], outer: dict[str, Any]) -> str:
        for key in (*_AT_LEAST, *_AT_MOST, *_EQUAL):
            if key not in outer:
                continue
            given, limit = inner.get(key), outer[key]
            if given is not None and key in _AT_LEAST:
                fits = given >= limit
            elif given is not None and key in _AT_MOST:
                fits = given <= limit
            else:
                fits = given == limit
            if not fits:
                return f"{key} is {quoted(limit)}" + ("" if given is None else f", and was {quoted(given)}")
        return ""

    def _why_not_inside(self, inner: dict[str, Any], outer: dict[str, Any]) -> str:
        if inner.get("type") == "array":
            return self._why_not_items(inner, outer)
        if inner.get("type") != "object":
            return ""
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
        first = inner.get("prefixItems", [])
        wanted = outer.get("prefixItems", [])
        for index in range(max(len(first), len(wanted))):
            item = first[index] if index < len(first) else _as_schema(inner.get("items", {}))
            taken = wanted[index] if index < len(wanted) else _as_schema(outer.get("items", {}))
            why = self.why_not(item, taken)
            if why:
                return f"item {index}: {why}"
        if inner.get("items") is False or outer.get("items") is False:
            return ""  # how many there can be was compared
        return self.why_not(_as_schema(inner.get("items", {})), _as_schema(outer.get("items", {})))


def _as_schema(found: Any) -> dict[str, Any]:
    """Return a schema in place of True, which takes anything."""
    return found if isinstance(found, dict) else {}


def _resolved(found: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in found:
        found = definitions[found["$ref"].rpartition("/")[2]]
    return found


def _has(outer: dict[str, Any], value: Any) -> bool:
    if "enum" in outer:
        return value in outer["enum"]
    if "const" in outer:
        return bool(value == outer["const"])
    kinds: dict[str, tuple[type, ...]] = {"integer": (int,), "number": (int, float), "string": (str,), "null": ()}
    return isinstance(value, kinds.get(outer.get("type", ""), ())) and not any(key in outer for key in _EQUAL)


def _shown(found: dict[str, Any]) -> str:
    return json.dumps({key: value for key, value in found.items() if key not in _NOTES})
