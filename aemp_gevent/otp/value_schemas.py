# SPDX-License-Identifier: MIT
"""The schemas of types: which values of a type travel, as a JSON Schema.

msgspec makes JSON Schemas, too, but of values as they are in JSON: there, the keys of all maps are texts, and any text
may be a ``datetime``. In messages they are not, so these schemas are made from msgspec's description of the types. What
JSON Schema has no word for is added to it: ``propertyNames`` may have another type than text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

_SIMPLE: dict[str, dict[str, Any]] = {
    "AnyType": {},
    "RawType": {},
    "NoneType": {"type": "null"},
    "BoolType": {"type": "boolean"},
    "IntType": {"type": "integer"},
    "FloatType": {"type": "number"},
    "StrType": {"type": "string"},
    "BytesType": {"type": "string", "contentEncoding": "base64"},
    "ByteArrayType": {"type": "string", "contentEncoding": "base64"},
    "MemoryViewType": {"type": "string", "contentEncoding": "base64"},
    "DateTimeType": {"type": "string", "format": "date-time"},
    "TimeType": {"type": "string", "format": "time"},
    "DateType": {"type": "string", "format": "date"},
    "TimeDeltaType": {"type": "string", "format": "duration"},
    "UUIDType": {"type": "string", "format": "uuid"},
    "DecimalType": {"type": "string", "format": "decimal"},
}
"""The schemas of types without parts, by the names of their classes in ``msgspec.inspect``."""

_NUMBER_LIMITS = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
    "multiple_of": "multipleOf",
}
_LENGTH_LIMITS = {"string": "Length", "array": "Items", "object": "Properties"}


class ValueSchemas:
    """Makes the schemas of types; those of classes become definitions that schemas refer to.

    Args:
        of_other: Returns the schema of a type that msgspec does not know, or raises ``TypeError``.
    """

    def __init__(self, of_other: Callable[[Any], dict[str, Any]]) -> None:
        self.definitions: dict[str, dict[str, Any]] = {}
        self._of_other = of_other
        self._names: dict[Any, str] = {}

    def of(self, kind: Any) -> dict[str, Any]:
        """Return the schema of a type that ``msgspec.inspect`` has described.

        Raises:
            TypeError: Its values cannot travel.
        """
        if type(kind).__name__ == "Metadata":
            return {**self.of(kind.type), **(kind.extra_json_schema or {})}
        if hasattr(kind, "cls") and type(kind).__name__ != "CustomType":
            if kind.cls not in self._names:
                name = self._names[kind.cls] = self._new_name(kind.cls)
                self.definitions[name] = {}  # keeps its place while its parts are described, which may refer to it
                self.definitions[name] = self._of_class(kind)
            return {"$ref": f"#/$defs/{self._names[kind.cls]}"}
        found = self._of_parts(kind)
        for limit, key in _NUMBER_LIMITS.items():
            if getattr(kind, limit, None) is not None:
                found[key] = getattr(kind, limit)
        for limit in ("min", "max"):
            if getattr(kind, f"{limit}_length", None) is not None:
                found[limit + _LENGTH_LIMITS[found["type"]]] = getattr(kind, f"{limit}_length")
        if getattr(kind, "pattern", None) is not None:
            found["pattern"] = kind.pattern
        return found

    def _of_parts(self, kind: Any) -> dict[str, Any]:
        name = type(kind).__name__
        if name in _SIMPLE:
            return dict(_SIMPLE[name])
        if name == "UnionType":
            return {"anyOf": [self.of(each) for each in kind.types]}
        if name == "LiteralType":
            return {"enum": _ordered(kind.values)}
        if name == "TupleType":
            count = len(kind.item_types)
            places = [self.of(each) for each in kind.item_types]
            return {"type": "array", "minItems": count, "maxItems": count, "prefixItems": places, "items": False}
        if hasattr(kind, "item_type"):
            items = self.of(kind.item_type)
            return {"type": "array", **({"items": items} if items else {})}
        if hasattr(kind, "key_type"):
            keys, values = self.of(kind.key_type), self.of(kind.value_type)
            found: dict[str, Any] = {"type": "object"}
            if keys not in ({}, {"type": "string"}):
                found["propertyNames"] = keys
            return {**found, **({"additionalProperties": values} if values else {})}
        if name == "CustomType":
            return self._of_other(kind.cls)
        raise TypeError(f"values of {name} cannot travel")

    def _of_class(self, kind: Any) -> dict[str, Any]:
        found: dict[str, Any] = {"title": kind.cls.__name__}
        if not hasattr(kind, "fields"):
            return {**found, "enum": _ordered({each.value for each in kind.cls.__members__.values()})}
        tag = getattr(kind, "tag_field", None)
        fields = {} if tag is None else {tag: {"enum": [kind.tag]}}
        fields |= {each.encode_name: self.of(each.type) for each in kind.fields}
        required = [] if tag is None else [tag]
        required += [each.encode_name for each in kind.fields if each.required]
        is_strict = getattr(kind, "forbid_unknown_fields", False)
        if type(kind).__name__ != "NamedTupleType" and not getattr(kind, "array_like", False):
            found |= {"type": "object", "properties": fields, "required": required}
            return {**found, **({"additionalProperties": False} if is_strict else {})}
        least = max((index + 1 for index, name in enumerate(fields) if name in required), default=0)
        found |= {"type": "array", "prefixItems": list(fields.values()), "minItems": least}
        if is_strict or type(kind).__name__ == "NamedTupleType":
            found |= {"maxItems": len(fields), "items": False}
        return found

    def _new_name(self, cls: Any) -> str:
        name = full = f"{cls.__module__}.{cls.__qualname__}"
        if cls.__name__ not in self.definitions:
            return str(cls.__name__)
        number = 1
        while name in self.definitions:
            number += 1
            name = f"{full}_{number}"
        return name


def _ordered(values: Iterable[Any]) -> list[Any]:
    """Return values of several types in an order that is the same each time."""
    return sorted(values, key=lambda value: (type(value).__name__, value is not None and value))
