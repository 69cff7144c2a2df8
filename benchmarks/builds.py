# SPDX-License-Identifier: MIT
"""The library's two builds in one run: compiled modules that are there, but that ``ours`` does not use, are a side."""

from __future__ import annotations

import importlib.util
import os
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

SIDE = "compiled"
ENVIRONMENT = {"AEMP_PURE_PYTHON": "0"}
"""What makes a process use the compiled modules."""


def is_installed() -> bool:
    """Return whether compiled modules stand beside the sources, and ``ours`` leaves them alone."""
    found = importlib.util.find_spec("aemp_gevent")
    if found is None or found.origin is None or os.environ.get("AEMP_PURE_PYTHON", "0") in {"", "0"}:
        return False
    return (Path(found.origin).parent / "ports" / f"scheduler{EXTENSION_SUFFIXES[0]}").exists()
