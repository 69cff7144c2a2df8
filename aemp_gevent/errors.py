# SPDX-License-Identifier: MIT
"""All exceptions that this library raises, in one tree.

Each class tells the caller what to do next: after a :class:`UsageError` the calling
code must change, after a :class:`ProtocolError` the peer must, and the others report
what happened outside. Classes build their own text from facts, so that it is the same
everywhere. Exceptions never log; the code that handles one does, once.

The package's top level exports the twelve that programs catch most; the others are imported from
here. Names end in ``Error``, except where Erlang has a word: a timeout, and a port that was killed or died.

The module is longer than others because the tree is one list of small classes that is read as a whole, and users
import all of them from here. It imports only the quoting of values. Read :mod:`aemp_gevent.addresses.ids` next.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from gevent.exceptions import LoopExit
from greenlet import GreenletExit

from aemp_gevent.runtime.quoting import escaped, quoted

_MAX_TEXT = 4000
"""Characters of an error's text."""

_MAX_REASON = 1000
"""Characters of a reason in its text."""

_MAX_TRACEBACK = 10_000
"""Characters of another process's traceback in its text."""


def _restore(kind: type[BaseException], args: tuple[object, ...], state: dict[str, Any]) -> Any:
    """Return a copy of an error, also from a pickle."""
    error: Any = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error


class Copyable:
    """Lets an exception be pickled and copied, whatever its class does with its arguments."""

    args: tuple[Any, ...]

    def __reduce__(self) -> tuple[Any, ...]:
        # Not by calling the class again, as BaseException does: most build their text from other arguments.
        return _restore, (type(self), self.args, self.__dict__)


class AempError(Copyable, Exception):
    """The root of every error of this library.

    Its text is one line that is safe for logs and terminals, whatever values are in it.
    """

    _keep = ""
    """Unprintable characters that its text may have."""

    def __init__(self, *args: object) -> None:
        super().__init__(*(escaped(arg, _MAX_TEXT, self._keep) if isinstance(arg, str) else arg for arg in args))

    def add(self, more: str) -> None:
        """Add details to the text that only the caller knows, such as the source of a setting."""
        self.args = (f"{self.args[0]}; {more}", *self.args[1:])


def _with_traceback(text: str, traceback: str) -> str:
    """Return an error's text with a traceback of another process below it, whose lines are marked."""
    lines = escaped(traceback.strip(), _MAX_TRACEBACK, "\n").split("\n") if traceback else []
    return text + "".join(f"\n  | {line}" for line in lines)


# --- the calling code must change -------------------------------------------


class UsageError(AempError):
    """A call broke a rule of the interface: fix the call."""


class InvalidPortError(UsageError, ValueError):
    """The value is not a port ID, even after ``str()``."""

    def __init__(self, port: object, why: str = "it has no node part") -> None:
        super().__init__(
            f"{quoted(port)} is not a port ID ({why}); a port ID is 'nodeid#portname', "
            "as returned by port(), spawn() and SELF(), or a node ID for the node port"
        )
        self.port = port


class InvalidNoderefError(UsageError, ValueError):
    """A noderef or node ID has a component that cannot be one."""

    def __init__(self, component: object, why: str) -> None:
        super().__init__(
            f"{quoted(component)} cannot be (part of) a noderef: {why}; write 'host:port', "
            "'[ipv6]:port', a bare port number or a host name, comma-separated"
        )
        self.component = component


class NotLocalError(UsageError):
    """The call needs a port of this node, but got one of another node."""

    def __init__(self, call: str, port: str, node: str) -> None:
        super().__init__(
            f"{call} works only on ports of this node ({node}), and {quoted(port)} lives elsewhere; "
            "send it a message, or spawn a function there that makes the call"
        )
        self.port = port


class DeadPortError(UsageError):
    """The call needs a living port, but this one died, or never existed."""

    def __init__(self, call: str, port: str) -> None:
        super().__init__(f"{call}: there is no port {quoted(port)} (it died, or never existed); create one with port()")
        self.port = port


class NoPortContextError(UsageError):
    """The call acts on ``SELF()``, but this code runs outside of any port."""

    def __init__(
        self, call: str, remedy: str = "run it in a handler, in port_async(), or inside 'with attach():'"
    ) -> None:
        super().__init__(f"{call} needs a port context, and SELF() is None here; {remedy}")


class ReceiverBusyError(UsageError):
    """Another greenlet receives for this port."""

    def __init__(self, port: str, why: str) -> None:
        super().__init__(f"receive for {quoted(port)} is not possible here: {why}; one greenlet receives for one port")


class NodePortError(UsageError):
    """The call is not possible for the node port (its ID is the node ID)."""

    def __init__(self, call: str, port: str) -> None:
        super().__init__(f"{call}: {quoted(port)} is a node port, which lives as long as its node; name a port of it")


class PortExistsError(UsageError):
    """A port of this name exists already on this node."""

    def __init__(self, port: str) -> None:
        super().__init__(f"a port {quoted(port)} exists already; port IDs are never used twice")


class AlreadyInitialisedError(UsageError):
    """The node has its identity already; a node is initialised once."""

    def __init__(self, node: str) -> None:
        super().__init__(
            f"this node is initialised already, as {quoted(node)}; initialise a process once, "
            "or make another Node() for another identity"
        )


class NodeShutDownError(UsageError):
    """The node was shut down, so the call could not have any effect."""

    def __init__(self, call: str, node: str) -> None:
        super().__init__(
            f"{call}: the node {node} was shut down; call shutdown() last, or make another Node() for what comes after"
        )


class PrivateNodeError(UsageError):
    """The call needs other nodes, but this node has not joined any."""

    def __init__(self, call: str) -> None:
        super().__init__(
            f"{call}: this process has not joined other nodes; put 'from aemp_gevent.contrib.gunicorn import *' into "
            "gunicorn.conf.py, call join_host('NAME') or configure() first, or give a URL with a name: 'aemp://NAME'"
        )


class UnknownSettingError(UsageError, TypeError):
    """A setting of this name does not exist."""

    def __init__(self, name: str, known: Iterable[str], where: str = "the call") -> None:
        import difflib  # noqa: PLC0415  # for mistakes only

        nearest = difflib.get_close_matches(name, list(known), n=1)
        hint = f"; did you mean {quoted(nearest[0])}?" if nearest else "; see the reference page Settings"
        super().__init__(f"{where}: there is no setting {quoted(name)}{hint}")
        self.name = name


class EndlessWaitError(UsageError, LoopExit):
    """The main greenlet waits for something that can never come; this is gevent's ``LoopExit``."""

    def __init__(self) -> None:
        super().__init__(
            "this wait could never end: gevent's loop has nothing left that could send a message, no timer, no socket "
            "and no other greenlet; give a timeout, initialise the node first, so that it listens, or find out why the "
            "greenlet that was to send has ended"
        )

    # LoopExit's own adds the name of the class and quotes to the text.
    __str__ = Exception.__str__


class WrongThreadError(UsageError):
    """The call was made in a native thread that the node does not belong to."""

    def __init__(self, call: str, *, is_patched: bool = False) -> None:
        hint = ", or call monkey.patch_all() in the program's first lines"
        if is_patched:
            hint = "; threads started before monkey.patch_all() stay native, so patch first"
        super().__init__(
            f"{call} works only in the native thread that the node belongs to; "
            f"use snd() or kil(), which any thread may call{hint}"
        )
        self.call = call


class InvalidSettingError(UsageError, ValueError):
    """A setting exists, but cannot have this value. The text names its source, if that is known."""

    def __init__(self, name: str, value: object, why: str, where: str = "the call") -> None:
        super().__init__(f"{where + ': ' if where else ''}setting {quoted(name)} cannot be {quoted(value)}: {why}")
        self.name = name


class ProfileError(UsageError, ValueError):
    """The profile file cannot be used, or has no such profile."""

    def __init__(self, path: object, why: str) -> None:
        super().__init__(f"profile file {path}: {why}")
        self.path = path


class NoSecretError(UsageError):
    """A networked node needs a secret or a certificate, but neither is configured."""

    def __init__(self) -> None:
        super().__init__(
            "a networked node needs a secret shared by all nodes: pass secret=..., "
            "set the environment variable AEMP_SECRET, or put it into the profile file "
            "('aemp gensecret' makes one, 'aemp setsecret' takes that of the others); "
            "or a certificate, with cert=..."
        )


class CertificateError(UsageError, ValueError):
    """A certificate, its key or a CA cannot be used, or other users may read the key."""

    def __init__(self, where: object, why: str) -> None:
        super().__init__(f"{where}: {why}")
        self.where = str(where)


class UnencodableMessageError(UsageError, TypeError):
    """A message has a value that cannot travel to another node."""

    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"the message cannot be encoded: {where} {why}")
        self.where = where


class MessageTooLargeError(UsageError, ValueError):
    """A message is larger, encoded, than ``max_message_bytes``, or has more than ``max_message_elements``."""

    def __init__(self, size: int, limit: int, unit: str = "bytes") -> None:
        size_text = f"{size} bytes encoded" if unit == "bytes" else f"{size} {unit}"
        super().__init__(
            f"the message has {size_text}, and max_message_{unit} is {limit}; "
            "send it in parts, or raise the limit on both nodes"
        )
        self.size = size
        self.limit = limit
        self.unit = unit


class InvalidEntryError(UsageError, ValueError):
    """The name cannot be a family or key of the directory."""

    def __init__(self, what: str, name: object, why: str) -> None:
        super().__init__(f"{quoted(name)} cannot be the {what} of a directory entry: {why}")
        self.name = name


class InvalidPresenceError(UsageError, ValueError):
    """A name, a key or the data of a session cannot be used for presence."""

    def __init__(self, what: str, value: object, why: str) -> None:
        super().__init__(f"{quoted(value)} cannot be the {what} of a presence: {why}")
        self.value = value


class InvalidSharedError(UsageError, ValueError):
    """A name, a key or a parameter of shared state cannot be used."""

    def __init__(self, what: str, value: object, why: str) -> None:
        super().__init__(f"{what} of shared state cannot be {quoted(value)}: {why}")
        self.value = value


class InvalidTopicError(UsageError, ValueError):
    """The text is not a topic, or not a pattern of topics."""

    def __init__(self, topic: object, why: str) -> None:
        super().__init__(
            f"{quoted(topic)} is not a topic: {why}; write words with dots between them, such as 'room.42'"
        )
        self.topic = topic


class TooManyTopicsError(UsageError):
    """This node is subscribed to as many topics and patterns as one node may be."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"this node is subscribed to {limit} topics already; subscribe to a pattern such as 'room.*'")
        self.limit = limit


class CallCycleError(UsageError):
    """Ports wait for each other's answers in a circle, so that none would come. One of them must use ``snd``."""

    def __init__(self, ports: Iterable[str]) -> None:
        self.ports = tuple(ports)
        """The ports in order: the first waits for the second, and the last for the first."""
        circle = " -> ".join((*self.ports, *self.ports[:1]))
        super().__init__(
            f"these ports wait for each other's answers: {circle}; let one of them use call_async() or snd(), "
            "or make its call in a port or greenlet of its own"
        )


# --- what the world did -----------------------------------------------------


class PortDied(AempError):
    """A port died, or messages to it were lost: no answer will come.

    Raised where a greenlet waits for the port, as in ``call``. Subscribers of ``zope.event``
    get it when a port of this node, or one that this node spawned, died abnormally and no monitor saw it.
    """

    def __init__(self, port: str, reason: tuple[object, ...]) -> None:
        super().__init__(f"port {port} died: {quoted(reason, _MAX_REASON)}" if reason else f"port {port} died normally")
        self.port = port
        self.reason = reason
        """As monitors get it: ``()`` is a normal death."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PortDied) and (self.port, self.reason) == (other.port, other.reason)

    def __hash__(self) -> int:
        return hash(self.port)


class CallTimeout(AempError, TimeoutError):
    """The called port did not answer in time. It may still have done the work."""

    def __init__(self, port: str, tag: object, timeout: float | None, blocked: str = "") -> None:
        text = f"{port} did not answer {quoted(tag)} within {timeout} s; it may still do what it was asked"
        super().__init__(f"{text}; its node is {blocked}" if blocked else text)
        self.port = port
        self.tag = tag
        self.timeout = timeout
        self.blocked = blocked
        """If the port's node is blocked: for how long, and where; otherwise empty."""


class RemoteError(AempError):
    """The code that served a call raised. The port it ran in lives on."""

    def __init__(self, port: str, error: str, traceback: str = "") -> None:
        super().__init__(f"{port} answered with an error: {error}")
        self.port = port
        self.error = error
        """The class and text of the exception that it raised."""
        self.traceback = traceback
        """The traceback as text; empty if the port's code sent only an error."""

    def __str__(self) -> str:
        return _with_traceback(self.args[0], self.traceback)


class StartError(AempError):
    """A server, a supervisor or a child did not start. The ``__cause__`` is its exception, unless it runs elsewhere."""

    def __init__(self, what: object, why: str, reason: tuple[object, ...] = ()) -> None:
        super().__init__(f"{what} did not start: {why}")
        self.what = str(what)
        self.reason = reason
        """What its port died of."""


class AlreadyStartedError(StartError):
    """The name belongs to another port, which is alive."""

    def __init__(self, what: object, name: str, port: str) -> None:
        why = f"the name {quoted(name)} belongs to {port}; use that one, stop it first, or choose another name"
        super().__init__(what, why, ("already_started", port))
        self.port = port
        """The port that has the name."""


class ReceiveTimeout(AempError, TimeoutError):
    """A matching message did not come in time. Later ones stay queued as usual."""

    def __init__(self, timeout: float | None) -> None:
        super().__init__(f"no matching message within {timeout} s")
        self.timeout = timeout


class LinkBusyError(AempError):
    """``snd_nowait`` sent nothing, because too much waits to be sent to that node. ``snd`` would have waited."""

    def __init__(self, node: str, unsent: int, high_water: int) -> None:
        super().__init__(
            f"the link to {node} has {unsent} unsent bytes, and its high-water mark is {high_water}; "
            "drop the message, try again later, or use snd(), which waits until there is room"
        )
        self.node = node
        self.unsent = unsent
        self.high_water = high_water


class DirectoryUnavailableError(AempError, TimeoutError):
    """The directory did not answer: none of this node's seeds can be reached, or not in time."""

    def __init__(self, call: str, why: str) -> None:
        super().__init__(f"{call}: the directory did not answer {why}")
        self.call = call


class DirectoryTimeout(AempError, TimeoutError):
    """A family did not become what ``db_wait`` waited for in time."""

    def __init__(self, family: str, timeout: float | None, entries: int | None) -> None:
        seen = "the directory did not report it" if entries is None else f"it has {entries} entries now"
        super().__init__(f"the family {quoted(family)} did not become as wanted within {timeout} s; {seen}")
        self.family = family
        self.timeout = timeout


class StateUnavailableError(AempError, TimeoutError):
    """The owner of shared state could not be asked in time, and no other node has taken its place."""

    def __init__(self, name: str, timeout: float | None, why: str) -> None:
        super().__init__(f"shared state {quoted(name)} could not be used within {timeout} s: {why}")
        self.name = name


class StateMovedError(AempError):
    """Shared state has moved to another node, where the same is asked again."""


class ResolveError(AempError, OSError):
    """A host name of a noderef could not be resolved."""

    def __init__(self, component: str, why: object) -> None:
        super().__init__(f"cannot resolve {quoted(component)}: {why}")
        self.component = component


class ListenError(AempError, OSError):
    """The node could not listen on one of its endpoints."""

    def __init__(self, endpoint: str, why: object) -> None:
        question = "is another node running there? " if "in use" in str(why) else ""
        super().__init__(
            f"cannot listen on {endpoint}: {why}; {question}'binds' can name another address (--bind of 'aemp run')"
        )
        self.endpoint = endpoint


class NoMasterError(AempError, OSError):
    """None of a slave's masters accepted it: the node is unchanged, and may try again."""

    def __init__(self, failures: Mapping[str, str], timeout: float) -> None:
        each = "; ".join(f"{master}: {why}" for master, why in failures.items())
        super().__init__(
            f"no master accepted this slave within {timeout:g} s (monitor_timeout): {each}; "
            "are they running, reachable from here, and is their secret the same?"
        )
        self.failures = dict(failures)
        """The last error, by master. That it did not answer in time counts only if it never answered."""


class RefusedError(AempError):
    """A peer asked for something that it may not do; the node logs and counts it. See the setting ``rules``."""


class SpawnRefusedError(RefusedError):
    """A function of this name does not exist, or the peer may not call it."""


class PortKilled(GreenletExit):
    """Thrown into a greenlet whose port was killed.

    Unlike the others it is not an :class:`AempError`, nor an :class:`Exception`: code
    that catches errors must not stop a kill. ``reason`` is the tuple given to
    :func:`~aemp_gevent.kil`.
    """

    def __init__(self, *reason: object) -> None:
        super().__init__(*reason)
        self.reason: tuple[object, ...] = reason


# --- the peer must change ---------------------------------------------------


class ProtocolError(AempError):
    """A side broke the rules of the wire: the link closes."""


class LocalProtocolError(ProtocolError):
    """The library made an undefined move: a bug here, not at the peer."""


class RemoteProtocolError(ProtocolError):
    """The peer broke the rules. Other exceptions of a decoder are bugs of the library."""


class GreetingError(RemoteProtocolError):
    """The peer's greeting cannot be read, or is refused."""


class AuthenticationError(RemoteProtocolError):
    """The peer could not prove that it knows the secret, or that it is the node of its ID."""


class TlsError(RemoteProtocolError):
    """TLS failed: one side does not trust the other's certificate, or the bytes are not TLS."""


class FramingError(RemoteProtocolError):
    """The peer sent bytes that are not packets, or a packet that is too large."""


# --- names of earlier versions ------------------------------------------------

_FORMER_NAMES = {
    "CallCycle": "CallCycleError",
    "DirectoryUnavailable": "DirectoryUnavailableError",
    "LinkBusy": "LinkBusyError",
    "WrongThread": "WrongThreadError",
}


def find_former(module: str, name: str) -> type[BaseException]:
    """Return an exception by its name or module of version 0.1, and warn; for a module's ``__getattr__``.

    Raises:
        AttributeError: There was no exception of this name.
    """
    new = _FORMER_NAMES.get(name, name)
    found = globals().get(new)
    if not (isinstance(found, type) and issubclass(found, BaseException)):
        raise AttributeError(f"module {quoted(module)} has no attribute {quoted(name)}")  # noqa: TRY004
    text = f"{module}.{name} is deprecated: use {__name__}.{new}"
    warnings.warn(text, DeprecationWarning, stacklevel=3)
    return found


if not TYPE_CHECKING:  # type checkers would accept any name

    def __getattr__(name):
        return find_former(__name__, name)
