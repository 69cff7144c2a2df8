# SPDX-License-Identifier: MIT
"""gevent's own test modules, with the toolkit's objects in place of gevent's."""

from __future__ import annotations

import importlib.util
import sys
import types
import unittest
from collections.abc import Mapping
from typing import Any

import gevent
import pytest


def copy_of(module: types.ModuleType, **others: Any) -> types.ModuleType:
    """Return a module with the same contents, but for some."""
    copy = types.ModuleType(module.__name__)
    copy.__dict__.update(vars(module))
    copy.__dict__.update(others)
    return copy


def load(name: str, form: str, replaced: Mapping[str, Mapping[str, Any]]) -> types.ModuleType:
    """Import a copy of one of gevent's test modules, in which names of other modules of gevent are replaced."""
    found = importlib.util.find_spec(f"gevent.tests.{name}")
    if found is None or found.origin is None:
        pytest.skip("this gevent was installed without its tests", allow_module_level=True)
    spec = importlib.util.spec_from_file_location(f"{name}_{form}", found.origin)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its cases look there
    # What gevent does itself on slow machines.
    patient = {"gevent.testing": {"EXPECT_POOR_TIMER_RESOLUTION": True, "RUNNING_ON_APPVEYOR": True}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("faulthandler.enable", lambda: None)  # pytest has its own file for that
        importlib.import_module("gevent.testing.timing")
    copies = {path: copy_of(sys.modules[path], **names) for path, names in {**replaced, **patient}.items()}
    package = copy_of(gevent, **{path.rpartition(".")[2]: copy for path, copy in copies.items()})
    with pytest.MonkeyPatch.context() as patch:
        for path, copy in copies.items():
            patch.setitem(sys.modules, path, copy)
            patch.setattr(gevent, path.rpartition(".")[2], copy)
        spec.loader.exec_module(module)
    names = vars(module)
    if "gevent" in names:
        names["gevent"] = package
    if "LARGE_RANGE" in names:
        names["LARGE_RANGE"] = 25  # as gevent does where they take long
    return module


def cases_of(module: types.ModuleType) -> dict[str, unittest.TestCase]:
    """Return the test cases that a module defines, by class and name. However long they take is all right."""
    found: dict[str, unittest.TestCase] = {}
    for kind in vars(module).values():
        if isinstance(kind, type) and issubclass(kind, unittest.TestCase) and kind.__module__ == module.__name__:
            vars_of: Any = kind
            vars_of.assertTimeWithinRange = _is_not_less
            vars_of.assertTimeoutAlmostEqual = _is_about_or_more
            for case in unittest.defaultTestLoader.loadTestsFromTestCase(kind):
                found[case.id().partition(".")[2]] = case
    return found


def _is_not_less(case: unittest.TestCase, value: float, least: float, _most: float) -> None:
    assert value >= least


def _is_about_or_more(
    case: unittest.TestCase, value: float, least: float, *_exactness: object, **_also: object
) -> None:
    assert value >= least * 0.9


def run(case: unittest.TestCase) -> None:
    """Run a test case of unittest; fail or skip as it does."""
    result = unittest.TestResult()
    case.run(result)
    for _, reason in result.skipped:
        pytest.skip(reason)
    for _, trace in [*result.errors, *result.failures]:
        pytest.fail(trace, pytrace=False)
