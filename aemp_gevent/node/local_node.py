# SPDX-License-Identifier: MIT
"""A node without a network: every call that needs no other process.

:class:`LocalNode` is what a program has before it initialises its node, and what
:class:`aemp_gevent.node.node.Node` builds on. Its methods are the library's public functions; their
docstrings are the reference. Each part is one concept in a module of its own. The parts are base classes and not
objects that a node holds: the public functions are bound methods, and one object more between a function and the
ports would cost every message.
"""

from __future__ import annotations

from aemp_gevent.node.calling import Calling
from aemp_gevent.node.running import Running


class LocalNode(Calling, Running):
    """The ports of one process, and everything they can do among themselves."""
