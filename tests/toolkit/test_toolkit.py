# SPDX-License-Identifier: MIT
"""What users may import from the toolkit: it exists, is listed, and is documented."""

import inspect
import subprocess
import sys

import pytest

from aemp_gevent import toolkit


def test_all_lists_what_the_package_exports_and_nothing_else():
    exported = {
        name for name, value in vars(toolkit).items() if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert exported == set(toolkit.__all__)


@pytest.mark.parametrize("name", toolkit.__all__)
def test_public_name_is_documented(name):
    thing = getattr(toolkit, name)
    assert inspect.getdoc(thing)
    for attribute, member in vars(thing).items() if inspect.isclass(thing) else ():
        if not attribute.startswith("_") and callable(member):
            assert inspect.getdoc(getattr(thing, attribute)), f"{name}.{attribute}"


def test_importing_it_starts_nothing():
    program = """
import aemp_gevent.toolkit
from gevent.hub import _get_hub
assert _get_hub() is None, "a hub was made"
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
