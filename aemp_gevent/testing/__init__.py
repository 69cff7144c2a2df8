# SPDX-License-Identifier: MIT
"""Help for the tests of programs that use the library."""

from __future__ import annotations

from aemp_gevent.testing.memory import MemoryNetwork

__all__ = ["MemoryNetwork"]
