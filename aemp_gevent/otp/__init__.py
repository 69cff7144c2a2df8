# SPDX-License-Identifier: MIT
"""Servers, and what keeps them running: Erlang's OTP for gevent.

:class:`Server` is a class whose instance lives in a port. Its methods marked :func:`call` and :func:`cast` are used
through a reference, from any node. :func:`link` lets two ports die together.

:class:`Supervisor` keeps others running: it starts its children, and starts them again when they die. The
ports of a :class:`TaskGroup` end together.
"""

from aemp_gevent.node.access import Later
from aemp_gevent.otp.children import Child
from aemp_gevent.otp.dynamic_supervisor import DynamicSupervisor
from aemp_gevent.otp.links import link, trap_exits, unlink
from aemp_gevent.otp.marks import call, cast
from aemp_gevent.otp.names import register, whereis
from aemp_gevent.otp.references import Reference
from aemp_gevent.otp.schemas import assert_compatible, schema
from aemp_gevent.otp.server import Server, reply_later
from aemp_gevent.otp.supervisor import Supervisor
from aemp_gevent.otp.task_groups import TaskGroup

__all__ = [
    "Child",
    "DynamicSupervisor",
    "Later",
    "Reference",
    "Server",
    "Supervisor",
    "TaskGroup",
    "assert_compatible",
    "call",
    "cast",
    "link",
    "register",
    "reply_later",
    "schema",
    "trap_exits",
    "unlink",
    "whereis",
]
