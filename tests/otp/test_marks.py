# SPDX-License-Identifier: MIT
"""The marks of methods: what they accept, and how arguments travel."""

from __future__ import annotations

import inspect

import pytest

from aemp_gevent.otp import call, cast
from tests.otp.carts import Cart


def several(self, a, b=2, *, c=3):
    pass


def named(self, **names):
    pass


def timed(self, timeout):
    pass


def nothing():
    pass


async def waits(self):
    pass


def generates(self):
    yield


@pytest.mark.parametrize("mark", [call, cast])
@pytest.mark.parametrize(
    ("function", "text"),
    [
        (several, r"by position, as they travel; the parameters \['c'\] cannot"),
        (named, r"\['names'\] cannot"),
        (timed, "'timeout', which belongs to the caller"),
        (nothing, "no 'self'"),
        (waits, "generator or async"),
        (generates, "generator or async"),
        (staticmethod(nothing), "comes above other decorators"),
        (5, "marks methods of a Server, not 5"),
    ],
)
def test_methods_that_cannot_be_marked_are_refused(mark, function, text):
    with pytest.raises(TypeError, match=text):
        mark(function)


@pytest.mark.parametrize("fatal", [5, "KeyError", (KeyError, 5), KeyboardInterrupt])
def test_what_is_fatal_must_be_exceptions(fatal):
    with pytest.raises(TypeError, match="exception classes, not"):
        call(fatal=fatal)


def takes(self, a, b=2, c=3, *more):
    pass


@pytest.mark.parametrize(
    ("args", "kwargs", "travel"),
    [
        ((1,), {}, (1,)),
        ((), {"a": 1}, (1,)),
        ((1,), {"b": 5}, (1, 5)),
        ((1,), {"c": 5}, (1, 2, 5)),
        ((), {"c": 5, "a": 1}, (1, 2, 5)),
        ((1, 2, 3, 4), {}, (1, 2, 3, 4)),
    ],
)
def test_arguments_travel_by_position_without_the_defaults_at_the_end(args, kwargs, travel):
    assert call(takes).by_position(args, kwargs) == travel


def test_a_mark_has_the_name_the_text_and_the_signature_of_its_method():
    assert Cart.add.__name__ == "add"
    assert inspect.getdoc(Cart.add) == "Add an item."
    assert list(Cart.add.signature.parameters) == ["self", "item", "count"]
    assert repr(Cart.add) == "<@call Cart.add(self, item: str, count: int = 1) -> int>"
