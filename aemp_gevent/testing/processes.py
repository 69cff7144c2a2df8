# SPDX-License-Identifier: MIT
"""Nodes in real processes, which a test controls, stops, kills and restarts.

A node in the test's own process cannot be killed, does not compete for a processor, and
shares everything with the test. What is promised for two processes is tested with two.
The program on the other side is :mod:`aemp_gevent.testing._child`.
"""

from __future__ import annotations

import signal
import sys
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from time import monotonic
from typing import Any

from gevent import sleep

from aemp_gevent.addresses import ids
from aemp_gevent.errors import ListenError
from aemp_gevent.runtime.quantities import Seconds, to_seconds
from aemp_gevent.runtime.quoting import quoted
from aemp_gevent.testing.channel import pack, unpack
from aemp_gevent.testing.control import OUTPUT_BYTES, START_SECONDS, ControlledProcess
from aemp_gevent.testing.errors import NodeProcessError, RemoteCodeError
from aemp_gevent.testing.waiting import wait_until

SECRET = "a secret of the tests"  # noqa: S105  # of nobody's network
"""The default secret of each :class:`NodeProcess`."""


class NodeProcess:
    """A node in another Python process. ``with`` starts it, and ends it whatever happens.

    The process ends with this one, too, even if this one is killed.

    Args:
        noderef: As for :func:`~aemp_gevent.initialise_node`; ``nodeid=`` among the settings
            takes its place.
        seeds: Noderefs of nodes to link to from the start.
        secret: Shared by all nodes of the test; None takes it from the environment.
        patched: Whether everything there is monkey-patched, before anything else is imported.
        python: The interpreter. This one finds the modules that we find; another one must have
            ``aemp_gevent`` installed, or be told by ``env={"PYTHONPATH": …}``.
        env: Environment variables besides those of this process.
        settings: See :class:`~aemp_gevent.Settings`. With ``nodeid=proxy.address`` and
            ``binds=["127.0.0.1:0"]`` the node stands behind a :class:`~aemp_gevent.testing.Proxy`.
    """

    def __init__(
        self,
        noderef: str = "127.0.0.1:0",
        *,
        seeds: Iterable[str] = (),
        secret: str | bytes | None = SECRET,
        patched: bool = False,
        python: str = sys.executable,
        env: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> None:
        self._noderef = None if "nodeid" in settings else noderef
        self._seeds = (seeds,) if isinstance(seeds, str) else tuple(seeds)
        self._settings = {"secret": secret, **settings}
        self._patched = patched
        self._python = python
        self._env = dict(env or {})
        self._node: str | None = None
        self._listens: list[str] = []
        self._process: ControlledProcess | None = None
        self._last_output = ""

    def __repr__(self) -> str:
        process = self._process
        if process is None:
            return f"<NodeProcess {self._node or self._noderef or self._settings['nodeid']}, not running>"
        status = process.status()
        return f"<NodeProcess {self._node}, pid {process.pid}{'' if status is None else f', ended with {status}'}>"

    # --- life ---

    def start(self) -> NodeProcess:
        """Start the process and wait until its node is initialised. Switches.

        Raises:
            RemoteCodeError: The node refused: a wrong setting, an address in use.
            NodeProcessError: The process did not get so far, or runs already.
        """
        if self._process is not None:
            raise NodeProcessError(f"{quoted(self)} runs already; restart() ends it first")
        self._process = ControlledProcess(self._python, self._patched, self._env)
        try:
            self._node, self._listens = self.run(
                "start_node(_noderef, _seeds, _settings)",
                timeout=START_SECONDS,
                _noderef=self._noderef,
                _seeds=self._seeds,
                _settings=self._settings,
            )
        except BaseException:
            self.close()
            raise
        return self

    def __enter__(self) -> NodeProcess:
        return self if self._process is not None else self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def restart(self) -> None:
        """Kill the process if it still runs, and start another incarnation of the node: same ID, same endpoints.

        A connection of another program may have got one of the ports meanwhile; that is waited for, up to 30 s.
        """
        self._running()
        if self._noderef is not None and self._node is not None:
            # A slave is given its name, and gets the rest of its ID from its master.
            self._noderef = self._node.partition("@")[0] if ids.master_of(self._node) else self._node
        if self._noderef is None or "binds" in self._settings:
            self._settings["binds"] = self._listens
        self.close()
        begin = monotonic()
        while True:
            try:
                self.start()
            except RemoteCodeError as error:
                if error.kind != ListenError.__name__ or monotonic() - begin > START_SECONDS:
                    raise
                sleep(0.1)
            else:
                return

    def close(self) -> None:
        """Kill the process if it still runs, and let go of everything. Idempotent. Switches."""
        process, self._process = self._process, None
        if process is not None:
            process.close()
            self._last_output = process.last_output

    # --- signals ---

    def kill(self) -> None:
        """Kill it (``SIGKILL``), and wait until it is gone. Idempotent."""
        process = self._running()
        process.send_signal(signal.SIGKILL)
        process.wait(START_SECONDS)

    def terminate(self) -> None:
        """Ask it to end (``SIGTERM``), and do not wait. Unless code in it handles the signal, it ends at once."""
        self._running().send_signal(signal.SIGTERM)

    def stop(self) -> None:
        """Suspend it (``SIGSTOP``), and wait until it has stopped. Its connections stay open, but do not answer."""
        process = self._alive()
        process.send_signal(signal.SIGSTOP)
        wait_until(process.is_stopped)

    def resume(self) -> None:
        """Continue the process after :meth:`stop` (``SIGCONT``)."""
        self._alive().send_signal(signal.SIGCONT)

    def wait(self, timeout: Seconds | None = 10.0) -> int:
        """Wait until it ended by itself, and return its exit status; negative: the signal that killed it.

        Raises:
            NodeProcessTimeout: It still runs after ``timeout`` seconds.
        """
        return self._running().wait(to_seconds(timeout, "wait()"))

    # --- running code in the process ---

    def run(self, code: str, *, timeout: Seconds | None = 10.0, **names: Any) -> Any:
        """Execute Python source in the process, and return the value of its last line, if that is an expression.

        It runs in a greenlet of its own, outside any port. ``mp`` is :mod:`aemp_gevent`,
        whose default node is the node; ``gevent`` is there, too. All commands share one
        namespace: what one imports or defines, the next one finds. The source may be indented.

        Args:
            code: The source. Lines of more than one statement are fine; ``return`` is not.
            timeout: Seconds to wait for its end.
            names: Values that it finds as global variables. They travel pickled, as does the
                returned value: there as here the module must exist that defines their classes.

        Raises:
            RemoteCodeError: It raised an exception; the text has the traceback.
            NodeProcessTimeout: It did not end in time, and still runs.
            NodeProcessError: The process has ended.
        """
        seconds = to_seconds(timeout, "run()")
        process = self._alive()
        reply = process.ask(textwrap.dedent(code), _packed(names), seconds)
        succeeded, *rest = reply
        if not succeeded:
            kind, text, traceback = rest
            raise RemoteCodeError(repr(self), kind, text, traceback)
        try:
            return unpack(rest[0])
        except Exception as error:  # whatever the value's own code raises
            raise NodeProcessError(f"the value of {quoted(code)} cannot be read here: {error}") from error

    def post(self, code: str, **names: Any) -> None:
        """Execute Python source in the process as :meth:`run` does, and do not wait. Errors go to its output."""
        self._alive().send(None, textwrap.dedent(code), _packed(names))

    # --- inspecting the process ---

    @property
    def node(self) -> str:
        """The node's ID. The same after :meth:`restart`."""
        if self._node is None:
            raise NodeProcessError(f"{quoted(self)}: use it as a context manager, or call start()")
        return self._node

    @property
    def listens(self) -> list[str]:
        """The endpoints that it listens on, with actual port numbers, for use as a proxy's target."""
        return list(self._listens)

    @property
    def pid(self) -> int:
        """The process ID, which changes with :meth:`restart`."""
        return self._running().pid

    @property
    def output(self) -> str:
        """The last 64 KiB of its output on standard output and standard error, also after :meth:`close`."""
        return self._last_output if self._process is None else self._process.output(OUTPUT_BYTES)

    def rss(self) -> int:
        """Return how many bytes of memory it has in use, also while it is stopped."""
        return self._alive().rss()

    def descriptors(self) -> int:
        """Return how many files and sockets it has open."""
        folder = Path(f"/proc/{self._alive().pid}/fd")
        if folder.is_dir():
            return len(list(folder.iterdir()))
        count: int = self.run("__import__('os').listdir('/dev/fd').__len__()")
        return count

    def greenlets(self) -> int:
        """Return how many greenlets stand somewhere in it, its own machinery and idle runners among them."""
        count: int = self.run(
            """
            import gc, greenlet
            gc.collect()
            sum(isinstance(thing, greenlet.greenlet) and thing.gr_frame is not None for thing in gc.get_objects())
            """
        )
        return count

    def _running(self) -> ControlledProcess:
        if self._process is None:
            raise NodeProcessError(f"{quoted(self)}: use it as a context manager, or call start()")
        return self._process

    def _alive(self) -> ControlledProcess:
        process = self._running()
        if process.status() is not None:
            raise process.ended()
        return process


def _packed(names: dict[str, Any]) -> bytes:
    try:
        return pack(names)
    except Exception as error:  # whatever the value's own code raises
        raise TypeError(f"the names cannot travel to the process, because they cannot be pickled: {error}") from error
