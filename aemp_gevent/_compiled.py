# SPDX-License-Identifier: MIT
"""The compiled modules: whether they are used, or their sources.

A compiled module stands beside its source, and the interpreter prefers it. Either all compiled modules are imported or
none, because they share the layout of their objects. So this module is imported before all others.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import (
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    ModuleSpec,
    PathFinder,
    SourceFileLoader,
)
from typing import Final

import greenlet

_PACKAGE: Final = "aemp_gevent."


class SourceFinder:
    """Finds the sources of the package's modules where compiled ones stand beside them."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None, _target: object = None) -> ModuleSpec | None:
        """Find the source of a compiled module. Called by the interpreter for each import."""
        spec = PathFinder.find_spec(name, path) if name.startswith(_PACKAGE) else None
        if spec is not None and isinstance(spec.loader, ExtensionFileLoader):
            folder = os.path.dirname(spec.loader.path)  # noqa: PTH120  # pathlib takes long to import
            spec = FileFinder(folder, (SourceFileLoader, SOURCE_SUFFIXES)).find_spec(name)
        return spec


_KNOWN_SIZE = object.__basicsize__ + struct.calcsize("3P")
"""Of greenlets, as compiled modules know them (``ports/c_calls.pxd``): another release may have other ones."""

_wants_sources = os.environ.get("AEMP_PURE_PYTHON", "0") not in {"", "0"}
if _wants_sources or greenlet.greenlet.__basicsize__ != _KNOWN_SIZE:
    sys.meta_path.insert(0, SourceFinder)

is_compiled: Final = isinstance(import_module(f"{_PACKAGE}ports.scheduler").__loader__, ExtensionFileLoader)
"""Whether the compiled modules are used: not if they were not built, with ``AEMP_PURE_PYTHON=1``, or where greenlet is
not as they know it."""
