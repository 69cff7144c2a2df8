# SPDX-License-Identifier: MIT
"""What tests may import: it exists, is listed, and is documented."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

from aemp_gevent import testing


def test_all_lists_what_the_package_exports_and_nothing_else() -> None:
    exported = {
        name for name, value in vars(testing).items() if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert exported == set(testing.__all__)


@pytest.mark.parametrize("name", testing.__all__)
def test_public_name_is_documented(name: str) -> None:
    thing = getattr(testing, name)
    if not callable(thing):
        return
    assert inspect.getdoc(thing)
    if inspect.isclass(thing):
        for attribute, member in vars(thing).items():
            if not attribute.startswith("_") and (callable(member) or isinstance(member, property)):
                assert inspect.getdoc(member), f"{name}.{attribute}"


def test_importing_needs_no_pytest_and_starts_nothing() -> None:
    program = """
import sys
import aemp_gevent.testing
from gevent.hub import _get_hub
assert "pytest" not in sys.modules
assert _get_hub() is None, "a hub was made"
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr


def test_library_itself_does_not_import_it() -> None:
    program = "import sys, aemp_gevent; assert not any('testing' in name for name in sys.modules if 'aemp' in name)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
