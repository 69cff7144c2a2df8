# SPDX-License-Identifier: MIT
"""Servers: a class whose instance lives in a port, and is used through messages.

:mod:`aemp_gevent.otp.marks` is about its methods, :mod:`aemp_gevent.otp.references` about the code that uses it,
:mod:`aemp_gevent.otp.starting` about its beginning, and :mod:`aemp_gevent.otp.lives` about its life in the port.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from aemp_gevent import SELF, Node, default_node
from aemp_gevent.node.access import Later, later_answer, running_node
from aemp_gevent.otp.lives import Life
from aemp_gevent.otp.marks import MarkedMethod, marks_of
from aemp_gevent.otp.references import CALL_SECONDS, Asyncs, Reference, reference_class
from aemp_gevent.otp.starting import START_SECONDS, start_server
from aemp_gevent.otp.typed import TypedMethod, msgspec_for, typed_later
from aemp_gevent.runtime.quantities import Seconds

if TYPE_CHECKING:
    from typing_extensions import Self

_USUAL: Any = object()


class Server:
    """A class whose instance lives in a port: derive yours from it, and start it with :meth:`start`.

    ::

        class Cart(Server):
            def init(self, owner: str) -> None:
                self.owner = owner
                self.items: list[str] = []

            @call
            def add(self, item: str) -> int:
                self.items.append(item)
                return len(self.items)


        cart = Cart.start("ada")
        cart.add("apple")

    All its methods run in its port, one after another: no other method runs while one of them waits. State is in
    plain attributes of ``self``. ``start`` returns a reference, which has the methods marked ``@call`` and ``@cast``;
    for type checkers it is a ``Cart``.

    ``class Cart(Server, typed=True)`` checks arguments and results by the methods' annotations, and converts them, so
    that dataclasses, ``datetime``, ``UUID``, ``Decimal``, enums, sets and references travel. It needs msgspec.
    """

    idle_after: Seconds | None = None
    """Seconds without a message after which :meth:`idle` is called; None: never. Also to be set in :meth:`init`."""

    terminate_timeout: Seconds | None = 5.0
    """Seconds that :meth:`terminate` may take; then it is interrupted, and logged."""

    aemp_free_names: ClassVar[frozenset[str]] = frozenset()
    """Names of this class that marked methods can have nevertheless."""
    _aemp_start_seconds: ClassVar[float | None] = START_SECONDS
    _aemp_marks: ClassVar[dict[str, MarkedMethod]] = {}
    _aemp_typed: ClassVar[bool] = False
    _aemp_types: ClassVar[dict[str, TypedMethod]] = {}
    _aemp_reference: ClassVar[type[Reference]]
    _aemp_life: Life

    def __init_subclass__(cls, *, typed: bool | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if typed is not None:
            cls._aemp_typed = typed
        if cls._aemp_typed:
            msgspec_for(f"{cls.__name__} with typed=True")
        cls._aemp_types = {}
        if "__init__" in vars(cls) or "__new__" in vars(cls):
            raise TypeError(f"{cls.__name__}: write init() in place of __init__(), as a server begins in its own port")
        for name, thing in vars(cls).items():
            _check(cls, name, thing)
        cls._aemp_marks = marks_of(cls)
        cls._aemp_reference = reference_class(cls, cls._aemp_marks)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Become this server in the port in whose context this runs, such as a port that another node has spawned."""
        node, port = running_node(), SELF()
        if node is None or port is None:
            name = type(self).__name__
            raise TypeError(f"{name}() becomes a server only in a port's code; {name}.start() starts one in a new port")
        self._aemp_life = Life(self, node, port, self._aemp_marks, self.aemp_types_of if self._aemp_typed else None)
        self._aemp_life.begin(args, kwargs)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} in {self}>"

    def __str__(self) -> str:
        return self._aemp_life.port

    # --- for users of a server ---

    @classmethod
    def start(
        cls,
        *args: Any,
        name: str | None = None,
        network_name: str | None = None,
        node: Node | object = None,
        start_timeout: Seconds | None = _USUAL,
        **kwargs: Any,
    ) -> Self:
        """Start a server in a new port, wait until its :meth:`init` has returned, and return a reference. Switches.

        Args:
            args: The arguments of :meth:`init`.
            name: The port's name on its node, see ``reg``. It must be free.
            network_name: Its name in the whole network, see :func:`register`. It must be free.
            node: Where: the ID of a node, or of one of its ports, which needs the class marked ``@spawnable``; or one
                of this process's nodes. None: the node whose port's code calls this, or else the default node.
            start_timeout: Seconds that it may take: 30, unless it is given. A supervisor has no limit of its own.
            kwargs: More arguments of :meth:`init`.

        Raises:
            StartError: :meth:`init` raised, or took too long; or the node cannot be reached, or refuses.
            AlreadyStartedError: The name belongs to another port.
            DirectoryUnavailableError: With a ``network_name``: the directory did not answer in time.
        """
        here, where = _nodes(node)
        seconds = cls._aemp_start_seconds if start_timeout is _USUAL else start_timeout
        port = start_server(here, where, cls, args, kwargs, name, network_name, seconds)
        return cls._aemp_refer(port, here)

    @classmethod
    def at(cls, port: object, *, node: Node | None = None) -> Self:
        """Return a reference to the server in a port, which is not asked.

        Args:
            port: The port's ID, or anything whose ``str()`` it is.
            node: The node to send from. None: as for :meth:`start`.

        Raises:
            InvalidPortError: It is not a port ID.
        """
        here = node or running_node() or default_node
        here.node_of(port)
        return cls._aemp_refer(str(port), here)

    @property
    def cast(self) -> Self:
        """The methods marked ``@cast``, of a reference: ``cart.cast.forget()``. Inside the server: a later turn."""
        return self._aemp_me().cast

    @property
    def async_(self) -> Asyncs:
        """The methods marked ``@call``, of a reference: ``cart.async_.add("apple")`` returns an ``AsyncResult``."""
        return self._aemp_me().async_

    def within(self, timeout: Seconds | None) -> Self:
        """Return a reference whose calls wait so many seconds; None: until the server dies."""
        return self._aemp_me().within(timeout)

    def stop(self, *reason: Any, timeout: Seconds | None = CALL_SECONDS) -> None:
        """Stop the server, with a reason that its monitors get; without one it is a normal end.

        Of a reference: after the messages that it has got; this waits until it has ended. Inside the server: when the
        method that runs has returned, and its answer was sent; other messages are discarded. :meth:`terminate` runs.

        Raises:
            CallTimeout: It has not ended after ``timeout`` seconds.
        """
        self._aemp_life.stop_with(reason)

    def _aemp_me(self) -> Self:
        life = self._aemp_life
        return self._aemp_refer(life.port, life.node)

    @classmethod
    def aemp_types_of(cls, mark: MarkedMethod) -> TypedMethod | None:
        """Return the types of a marked method; None if messages are not typed."""
        if not cls._aemp_typed:
            return None
        types = cls._aemp_types.get(mark.name)
        if types is None:  # not before the first use: annotations may name what is defined later
            types = cls._aemp_types[mark.name] = TypedMethod(cls, mark)
        return types

    @classmethod
    def _aemp_refer(cls, port: str, node: Node) -> Self:
        reference: Any = cls._aemp_reference(port, node)
        return reference  # type: ignore[no-any-return]  # seen as the class

    # --- for servers to implement ---

    def init(self, *args: Any, **kwargs: Any) -> None:
        """Begin with the arguments of :meth:`start`, in the port. Messages wait meanwhile. It may block."""

    def info(self, *msg: Any) -> None:
        """Handle a message that is not for a marked method, such as one of a monitor. May be overridden.

        Without it, such messages are discarded, and logged once for each tag. Calls never get here: they fail.
        """

    def idle(self) -> None:
        """Use the time: no message came for :attr:`idle_after` seconds. Called again after each such time."""

    def terminate(self, reason: tuple[Any, ...]) -> None:
        """Clean up before the server's end, whatever the reason, within :attr:`terminate_timeout` seconds.

        Runs in the port, while it is still alive, except if the port was killed by ``kil``: then right after that,
        outside of any port.
        """


_OURS = frozenset({*vars(Server), "server"})  # which is an attribute of references


def _check(cls: type[Server], name: str, thing: object) -> None:
    """Raise if an attribute cannot be one of a class of servers."""
    if isinstance(thing, MarkedMethod):
        if name != thing.name:
            why = "other ports cannot use it under this name"
        elif name.startswith("_") or name in _OURS - cls.aemp_free_names:
            why = "choose another name"
        else:
            why = ""
        if why:
            raise TypeError(f"{cls.__name__}.{name} cannot be marked @{thing.kind}: {why}")
    base = next((vars(base)[name] for base in cls.__mro__[1:] if name in vars(base)), None)
    if isinstance(base, MarkedMethod) and not isinstance(thing, type(base)):
        raise TypeError(f"{cls.__name__}.{name} must be marked @{base.kind}, as {base.function.__qualname__} is")


def reply_later() -> Later[Any]:
    """Return what answers the call that the running method serves, later and from any greenlet.

    ::

        @call
        def price(self, item: str) -> Later[float]:
            later = reply_later()
            gevent.spawn(self.look_up, item, later)
            return later

    The method must return it: otherwise what it returns is the answer.

    Raises:
        NoPortContextError: There is no such call.
    """
    return typed_later(later_answer(running_node() or default_node))


def _nodes(node: Any) -> tuple[Node, str | None]:
    """Return the node of this process that sends, and the ID of the node to start on; None: the same."""
    here: Node = running_node() or default_node
    if node is None:
        return here, None
    if isinstance(node, Node):
        return node, None
    where = here.node_of(node)
    return here, None if where == here.NODE() else where
