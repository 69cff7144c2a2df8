# SPDX-License-Identifier: MIT
"""Erlang-style message passing for gevent: ports, nodes, links, monitors, blocking receive.

The folders are floors: each imports only from those below it. The order is in ``pyproject.toml``, and the
first line of each folder's ``__init__.py`` says what it contains.

Importing the package patches nothing and starts nothing.
"""

import atexit
import sys
import typing as _typing
from importlib import import_module as _import_module

from aemp_gevent._compiled import is_compiled  # isort: split  # before any module that may be compiled
from aemp_gevent._version import __version__
from aemp_gevent.calls.serve import time_left
from aemp_gevent.directory.family_monitor import DirectoryMonitor
from aemp_gevent.directory.local_directory import DirectoryEntry
from aemp_gevent.errors import (
    AempError,
    CallTimeout,
    DirectoryTimeout,
    InvalidPortError,
    InvalidSettingError,
    LinkBusyError,
    MessageTooLargeError,
    PortDied,
    PortKilled,
    ReceiveTimeout,
    RemoteError,
    UnencodableMessageError,
)
from aemp_gevent.errors import find_former as _find_former
from aemp_gevent.node.leaving import shut_down_all as _shut_down_all
from aemp_gevent.node.node import Node
from aemp_gevent.node.node_monitors import NodeGuard
from aemp_gevent.node.spawnable_functions import spawnable
from aemp_gevent.ports.attachment import Attachment
from aemp_gevent.ports.callbacks import DONE
from aemp_gevent.ports.context import SELF, psub
from aemp_gevent.ports.monitors import Monitor
from aemp_gevent.ports.patterns import any_
from aemp_gevent.ports.receive import get, get_cond, receive
from aemp_gevent.ports.timers import Timer

_LAZY = {
    "NodeBlocked": "events",
    "NodeDown": "events",
    "NodeState": "links.node_state",
    "NodeUnblocked": "events",
    "NodeUp": "events",
    "PeerRule": "settings.rules",
    "Settings": "settings.fields",
}
"""Classes that few programs use at their start, with their modules: dataclasses take long to import."""

if _typing.TYPE_CHECKING:
    from aemp_gevent.events import NodeBlocked, NodeDown, NodeUnblocked, NodeUp
    from aemp_gevent.links.node_state import NodeState
    from aemp_gevent.settings.fields import Settings
    from aemp_gevent.settings.rules import PeerRule
else:  # hidden from type checkers, which would accept any name

    def __getattr__(name):
        if name in _LAZY:
            value = globals()[name] = getattr(_import_module(f"{__name__}.{_LAZY[name]}"), name)
            return value
        return _find_former(__name__, name)


# After the import of gevent, which on a free-threaded build switches the GIL on again unless that is disabled.
if not getattr(sys, "_is_gil_enabled", lambda: True)():
    raise ImportError(
        "aemp_gevent needs Python's global interpreter lock, which is off here: start Python with -X gil=1, or use "
        "a build that is not free-threaded"
    )


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


default_node = Node()
"""The node that the module functions act on."""


atexit.register(_shut_down_all)


NODE = default_node.NODE
actor = default_node.actor
after = default_node.after
attach = default_node.attach
cal = default_node.cal
call = default_node.call
call_async = default_node.call_async
configure = default_node.configure
db_del = default_node.db_del
db_family = default_node.db_family
db_keys = default_node.db_keys
db_mon = default_node.db_mon
db_reg = default_node.db_reg
db_set = default_node.db_set
db_values = default_node.db_values
db_wait = default_node.db_wait
flush = default_node.flush
grp_get = default_node.grp_get
grp_mon = default_node.grp_mon
grp_reg = default_node.grp_reg
grp_snd = default_node.grp_snd
initialise_node = default_node.initialise_node
kil = default_node.kil
mon = default_node.mon
mon_guard = default_node.mon_guard
mon_nodes = default_node.mon_nodes
node_state = default_node.node_state
node_is_up = default_node.node_is_up
node_of = default_node.node_of
peval = default_node.peval
peval_async = default_node.peval_async
port = default_node.port
port_async = default_node.port_async
rcv = default_node.rcv
rcv_async = default_node.rcv_async
reg = default_node.reg
resolve_node = default_node.resolve_node
serve = default_node.serve
shutdown = default_node.shutdown
shutdown_on_signal = default_node.shutdown_on_signal
snd = default_node.snd
snd_nowait = default_node.snd_nowait
spawn = default_node.spawn
syncal = default_node.syncal
up_nodes = default_node.up_nodes

__all__ = [
    "DONE",
    "NODE",
    "SELF",
    "AempError",
    "Attachment",
    "CallTimeout",
    "DirectoryEntry",
    "DirectoryMonitor",
    "DirectoryTimeout",
    "InvalidPortError",
    "InvalidSettingError",
    "LinkBusyError",
    "MessageTooLargeError",
    "Monitor",
    "Node",
    "NodeBlocked",
    "NodeDown",
    "NodeGuard",
    "NodeState",
    "NodeUnblocked",
    "NodeUp",
    "PeerRule",
    "PortDied",
    "PortKilled",
    "ReceiveTimeout",
    "RemoteError",
    "Settings",
    "Timer",
    "UnencodableMessageError",
    "__version__",
    "actor",
    "after",
    "any_",
    "attach",
    "cal",
    "call",
    "call_async",
    "configure",
    "db_del",
    "db_family",
    "db_keys",
    "db_mon",
    "db_reg",
    "db_set",
    "db_values",
    "db_wait",
    "default_node",
    "flush",
    "get",
    "get_cond",
    "grp_get",
    "grp_mon",
    "grp_reg",
    "grp_snd",
    "initialise_node",
    "is_compiled",
    "kil",
    "mon",
    "mon_guard",
    "mon_nodes",
    "node_is_up",
    "node_of",
    "node_state",
    "peval",
    "peval_async",
    "port",
    "port_async",
    "psub",
    "rcv",
    "rcv_async",
    "receive",
    "reg",
    "resolve_node",
    "serve",
    "shutdown",
    "shutdown_on_signal",
    "snd",
    "snd_nowait",
    "spawn",
    "spawnable",
    "syncal",
    "time_left",
    "up_nodes",
]
