# SPDX-License-Identifier: MIT
"""``aemp shell``: a Python prompt with a node and a port of its own.

**Two threads.** ``readline`` blocks its thread while it reads a line, and a node whose loop is blocked loses its links.
So the node has a native thread of its own, and all statements run in that thread's main greenlet, which has a port. The
main thread only reads lines, completes names and receives Ctrl-C. (The alternative, C's ``PyOS_InputHook``, would make
gevent switch greenlets inside of ``readline``, and could not be told of a Ctrl-C.)

IPython has a hook for event loops, so with IPython the node runs in the main thread.
"""

from __future__ import annotations

import code
import ctypes
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING, Any

import click

from aemp_gevent.cli.command_node import NodeOptions, connected, node_options
from aemp_gevent.cli.node_queries import node_id
from aemp_gevent.cli.output import echo
from aemp_gevent.cli.talk import check_may_eval, evaluate

if TYPE_CHECKING:
    from gevent.event import Event

    from aemp_gevent.node.node import Node

_PATIENCE_SECONDS = 0.3
"""Time for waiting code to stop after a Ctrl-C, before computing code is interrupted as well."""

_ATTEMPTS = 5
_GOES_ON = "aemp: the code keeps running until the call returns: gevent.sleep can be interrupted, time.sleep cannot"
"""Printed after so many attempts: C code outside of gevent cannot be interrupted."""

_HISTORY_LINES = 1000

_REMOTE_SECONDS = 3600.0


@click.command()
@click.argument("node_name", metavar="[NODE]", required=False)
@click.option("--plain", is_flag=True, help="Use Python's own prompt even if IPython is installed.")
@node_options
def shell(options: NodeOptions, node_name: str | None, plain: bool) -> None:
    """Open a Python prompt that has a port of the network, with all functions of aemp_gevent imported.

    Messages sent to the port can be read with receive(timeout=0). Tab completes names, the history is saved, Ctrl-C
    interrupts a statement, and Ctrl-D ends the prompt.

    With NODE, each statement runs on that node instead, which must be run with allow_eval. Statements run separately:
    nothing is kept from one to the next.
    """
    if node_name is None and not plain and sys.stdin.isatty() and find_spec("IPython") is not None:
        _run_ipython(options)
        return
    place = _Place(options)
    place.start()
    try:
        place.wait_until_ready()
        prompt = _Prompt(place) if node_name is None else _RemotePrompt(place, node_name)
        prompt.run()
    finally:
        place.stop()


def names_for(node: Node, port: str) -> dict[str, Any]:
    """Return a prompt's names: the library's functions, ``mp``, ``gevent``, ``node``, and the port as ``me``."""
    import gevent  # noqa: PLC0415

    import aemp_gevent as mp  # noqa: PLC0415

    functions = {name: getattr(mp, name) for name in mp.__all__}
    return {"__name__": "__aemp__", **functions, "mp": mp, "gevent": gevent, "node": node, "me": port}


def _welcome(node: Node, port: str) -> str:
    return (
        f"Port {port} of a node linked to {', '.join(node.up_nodes())}.\n"
        "snd, call, receive, mon, spawn and the other functions are imported; 'me' is this port. Ctrl-D quits."
    )


# --- the node's thread -------------------------------------------------------------------------


class _Place(threading.Thread):
    """The native thread in which the node and the typed code run.

    Args:
        options: The node's options.
    """

    node: Node
    port: str

    def __init__(self, options: NodeOptions) -> None:
        super().__init__(name="node", daemon=True)
        self._options = options
        self._jobs: deque[tuple[Callable[[], object], _CallEnd] | None] = deque()
        self._bell: Event | None = None
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._greenlet: Any = None
        self._is_busy = False

    # --- in this thread ---

    def run(self) -> None:
        """Run a node until told to stop."""
        try:
            with connected(self._options) as node, node.attach() as port:
                self._serve(node, port)
        except BaseException as error:  # noqa: BLE001  # raised where this thread is waited for
            self._failure = error
        self._ready.set()

    def _serve(self, node: Node, port: str) -> None:
        from gevent.event import Event  # noqa: PLC0415
        from greenlet import getcurrent  # noqa: PLC0415

        self.node, self.port = node, port
        self._greenlet = getcurrent()
        self._bell = Event()
        self._ready.set()
        while True:
            with suppress(KeyboardInterrupt):  # from a Ctrl-C that came too late
                self._bell.wait()
                self._bell.clear()
                while self._jobs:
                    job = self._jobs.popleft()
                    if job is None:
                        return
                    self._do(*job)

    def _do(self, call: Callable[[], object], done: _CallEnd) -> None:
        try:
            self._is_busy = True
            call()
        except BaseException as error:  # noqa: BLE001  # raised where it is waited for
            done.failure = error
        finally:
            self._is_busy = False
            done.set()

    # --- in the main thread ---

    def wait_until_ready(self) -> None:
        """Wait until the node is linked, or raise what prevented it."""
        self._ready.wait()
        if self._failure is not None:
            raise self._failure

    def do(self, call: Callable[[], object]) -> None:
        """Call a function in this thread, and wait; raise what it raises. Ctrl-C interrupts the function."""
        done = _CallEnd()
        self._jobs.append((call, done))
        self._ring()
        try:
            done.wait()
        except KeyboardInterrupt:
            self._interrupt(done)
        if done.failure is not None:
            raise done.failure

    def _interrupt(self, done: _CallEnd) -> None:
        self.node.scheduler.call_on_hub(self._throw)
        attempts = 0
        while not done.wait(_PATIENCE_SECONDS):
            attempts += 1
            if attempts == _ATTEMPTS:
                echo(_GOES_ON, err=True)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(self.ident or 0), ctypes.py_object(KeyboardInterrupt)
            )

    def _throw(self) -> None:  # on the hub, so the code is waiting for something
        if self._is_busy:
            self._greenlet.throw(KeyboardInterrupt)

    def _ring(self) -> None:
        assert self._bell is not None  # it is ready
        self.node.scheduler.call_on_hub(self._bell.set)

    def stop(self) -> None:
        """Shut the node down, and end the thread."""
        if self._bell is not None and self.is_alive():
            self._jobs.append(None)
            self._ring()
            self.join(10.0)


class _CallEnd(threading.Event):
    """The end of a call, with the exception that it raised."""

    failure: BaseException | None = None


# --- the prompt --------------------------------------------------------------------------------


class _Prompt(code.InteractiveConsole):
    """Python's prompt, whose code runs in the node's thread.

    Args:
        place: That thread.
    """

    def __init__(self, place: _Place) -> None:
        self._place = place
        super().__init__(names_for(place.node, place.port), "<aemp shell>")

    def run(self) -> None:
        """Read, run and print until the end of the input."""
        is_terminal = sys.stdin.isatty()
        if not is_terminal:
            sys.ps1 = sys.ps2 = ""
        else:
            self._set_up_readline()
        with suppress(SystemExit):
            self.interact(self.welcome() if is_terminal else "", "")

    def welcome(self) -> str:
        """Return the text that is printed first."""
        return _welcome(self._place.node, self._place.port)

    def runcode(self, code: CodeType) -> None:
        """Run a statement in the node's thread, and print its traceback there, where the exception is."""

        def run() -> None:
            try:
                exec(code, self.locals)  # noqa: S102  # what this is for
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException:  # noqa: BLE001  # gevent.Timeout, too
                self.showtraceback()

        self._place.do(run)

    def _set_up_readline(self) -> None:
        try:
            import readline  # noqa: PLC0415
        except ImportError:  # Windows, and Pythons built without it
            return
        import atexit  # noqa: PLC0415
        import rlcompleter  # noqa: PLC0415

        readline.set_completer(rlcompleter.Completer(dict(self.completed())).complete)
        is_libedit = "libedit" in (readline.__doc__ or "")
        readline.parse_and_bind("bind ^I rl_complete" if is_libedit else "tab: complete")
        history = history_path()
        with suppress(OSError):
            readline.read_history_file(history)
        readline.set_history_length(_HISTORY_LINES)
        atexit.register(_keep_history, history)

    def completed(self) -> dict[str, Any]:
        """Return the names to complete."""
        return self.locals


class _RemotePrompt(_Prompt):
    """Python's prompt, whose statements run on another node."""

    def __init__(self, place: _Place, node_name: str) -> None:
        super().__init__(place)
        place.do(lambda: self._find(node_name))

    def _find(self, node_name: str) -> None:
        self._other = node_id(self._place.node, node_name)
        self._program = check_may_eval(self._place.node, self._other, 5.0)

    def welcome(self) -> str:
        if self._program:
            return f"Each line runs separately on {self._other}, in the language of {self._program}. Ctrl-D quits."
        return f"Each statement runs separately on {self._other}. Ctrl-D quits."

    def completed(self) -> dict[str, Any]:
        return {}

    def runsource(self, source: str, filename: str = "<input>", symbol: str = "single") -> bool:
        """Send a statement once it is complete; for another language than Python, send each line."""
        if self._program:
            if source.strip():
                self._place.do(lambda: self._evaluate(source))
            return False
        try:
            compiled = self.compile(source, filename, symbol)
        except (OverflowError, SyntaxError, ValueError):
            self.showsyntaxerror(filename)
            return False
        if compiled is None:
            return True
        if source.strip():
            self._place.do(lambda: self._evaluate(source))
        return False

    def _evaluate(self, source: str) -> None:
        try:
            found = evaluate(self._place.node, self._other, source, _REMOTE_SECONDS)
        except click.ClickException as error:
            echo(error.format_message(), err=True)
        else:
            if found is not None:
                echo(repr(found))


def history_path() -> Path:
    """Return the path of the history file."""
    base = os.environ.get("XDG_STATE_HOME", "")
    folder = Path(base) if Path(base).is_absolute() else Path.home() / ".local" / "state"
    return folder / "aemp" / "shell_history"


def _keep_history(path: Path) -> None:
    import readline  # noqa: PLC0415

    with suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)  # it may contain secrets
        readline.write_history_file(path)


# --- IPython -----------------------------------------------------------------------------------


def _run_ipython(options: NodeOptions) -> None:
    from gevent.select import select  # noqa: PLC0415

    # Imported by name because IPython is optional, also for type checkers.
    hooks: Any = import_module("IPython.terminal.pt_inputhooks")
    embedding: Any = import_module("IPython.terminal.embed")

    def wait_for_keys(context: Any) -> None:
        select([context.fileno()], [], [])  # gevent's select, so that the loop keeps running

    with connected(options, runs_code=True) as node, node.attach() as port:
        names = names_for(node, port)
        hooks.register("aemp", wait_for_keys)
        prompt = embedding.InteractiveShellEmbed(banner1=_welcome(node, port) + "\n", user_ns=names)
        prompt.enable_gui("aemp")
        prompt(local_ns=names)
