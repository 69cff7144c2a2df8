# SPDX-License-Identifier: MIT
"""The names of all requests that node ports understand.

A request is a packet for the node port: ``["", name, arguments…]``. Code that sends or handles one
takes its name from here. docs/reference/wire.md has the arguments, and what each request does.
"""

from __future__ import annotations

# --- of AnyEvent::MP 2.02 ---

DEVNULL = "devnull"
MON1 = "mon1"
MON0 = "mon0"
KIL0 = "kil0"
KIL1 = "kil1"
SPAWN = "AnyEvent::MP::_spawn"
SND = "snd"
RELAY = "relay"
LOOKUP = "lookup"
CAN = "can"
TIME = "time"
EVAL = "eval"

# --- of this library, which Perl's nodes take for the names of functions ---

INFO = "info"
INSPECT = "inspect"
LOG = "log"

# --- between nodes of this library only ---

AFTER = "after"
REFUSED = "refused"
NOT_DONE = "not_done"
BYE = "bye"
CALL = "call"
IDLE = "idle"
STAY = "stay"
VIA = "via"
BEATS = "beats"
UNBLOCKED = "unblocked"

VIA_UP = "via_up"
"""Inside of a :data:`VIA` only: opens a virtual link."""

VIA_DOWN = "via_down"
"""Inside of a :data:`VIA` only: ends a virtual link."""

VIA_STATE = "via_state"
"""Inside of a :data:`VIA` only: a slave is blocked, or no longer."""

# --- of the directory, gproto=1: to a master, and from one ---

G_SLAVE = "g_slave"
G_UPD = "g_upd"
G_FIND = "g_find"
G_DB_FAMILY = "g_db_family"
G_DB_KEYS = "g_db_keys"
G_DB_VALUES = "g_db_values"
G_MON1 = "g_mon1"
G_MON0 = "g_mon0"
G_GLOBAL = "g_global"
G_SET = "g_set"
G_FOUND = "g_found"
G_REPLY = "g_reply"
G_CHG1 = "g_chg1"
G_CHG2 = "g_chg2"

DIRECTORY = frozenset(
    {G_SLAVE, G_UPD, G_FIND, G_DB_FAMILY, G_DB_KEYS, G_DB_VALUES, G_MON1, G_MON0}
    | {G_GLOBAL, G_SET, G_FOUND, G_REPLY, G_CHG1, G_CHG2}
)
"""All requests of the directory: those to a master, which is a global node, and those from one."""
