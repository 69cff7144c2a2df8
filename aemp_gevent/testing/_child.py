# SPDX-License-Identifier: MIT
"""The program that runs in the process of a :class:`~aemp_gevent.testing.NodeProcess`.

It executes commands from its parent. Each runs in a greenlet of its own, so that a waiting command does not block
others. All share one namespace. The process ends with its parent, however that ends.
"""

from __future__ import annotations

import ast
import contextlib
import ctypes
import linecache
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import gevent
from gevent import socket
from greenlet import GreenletExit

import aemp_gevent as mp
from aemp_gevent.testing.channel import Channel, pack, unpack

_PR_SET_PDEATHSIG = 1


def main(descriptor: int) -> None:
    """Serve the parent at the other end of the inherited socket, until it is gone."""
    _end_with_parent()
    sock = socket.socket(fileno=descriptor)
    sock.set_inheritable(False)  # a program that the node starts must not keep the parent waiting for our end
    serve(Channel(sock), {"__name__": "__node__", "mp": mp, "gevent": gevent, "start_node": start_node})
    os._exit(0)  # threads or exit handlers of what was run here must not keep us


def _end_with_parent() -> None:
    """End with the parent even if this process cannot notice its end, because it is stopped or in a busy loop."""
    # The system continues a stopped process when its group is left without anybody to look after it,
    # and a Ctrl-C at the terminal is for the test, which then ends us.
    with contextlib.suppress(PermissionError):  # we are the leader of a group already
        os.setpgid(0, 0)
    if sys.platform == "linux":
        # Strictly, when the thread that started us ends; so does its loop, and who talks to us there.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def start_node(noderef: str | None, seeds: Sequence[str], settings: dict[str, Any]) -> tuple[str, list[str]]:
    """Initialise the default node; return its ID, and the endpoints where it listens."""
    if noderef is None:
        mp.configure(seeds=seeds, **settings)
    elif "binds" in settings:
        mp.configure(nodeid=noderef, seeds=seeds, **settings)
    else:
        mp.initialise_node(noderef, *seeds, **settings)
    network = mp.default_node._network  # pyright: ignore[reportPrivateUsage]
    assert network is not None
    return mp.NODE(), list(map(str, network.listeners.endpoints))


def serve(channel: Channel, namespace: dict[str, Any]) -> None:
    """Carry out commands until the channel closes."""
    while True:
        try:
            number, code, names = channel.receive()
        except (EOFError, OSError):
            return
        gevent.spawn(_carry_out, channel, namespace, number, code, names)


def _carry_out(channel: Channel, namespace: dict[str, Any], number: int | None, code: str, names: bytes) -> None:
    """Execute one command, and answer if it has a number; without one nobody waits, and errors are printed."""
    filename = f"<command {number}>" if number is not None else "<posted command>"
    answer: tuple[Any, ...]
    try:
        namespace.update(unpack(names))
        answer = (True, pack(execute(code, namespace, filename)))
    except (Exception, GreenletExit, gevent.Timeout) as error:  # noqa: BLE001  # it is reported; SystemExit is meant
        text = _traceback(error, code, filename)
        if number is None:
            sys.stderr.write(text)
            return
        answer = (False, type(error).__name__, str(error), text)
    if number is not None:
        with contextlib.suppress(OSError):  # the parent is gone, and we are about to follow
            channel.send(number, *answer)


def execute(code: str, namespace: dict[str, Any], filename: str = "<command>") -> Any:
    """Execute Python source; return the value of its last statement if that is an expression, else None."""
    tree = ast.parse(code, filename)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, filename, "exec", dont_inherit=True), namespace)  # noqa: S102  # what we are for
    if not isinstance(last, ast.Expr):
        return None
    return eval(compile(ast.Expression(last.value), filename, "eval", dont_inherit=True), namespace)  # noqa: S307


def _traceback(error: BaseException, code: str, filename: str) -> str:
    """Return the traceback with the command's own lines, and without ours."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename == __file__:
        frames = frames.tb_next
    lines = code.splitlines(keepends=True)
    linecache.cache[filename] = (len(code), None, lines, filename)
    try:
        return "".join(traceback.format_exception(type(error), error, frames))
    finally:
        del linecache.cache[filename]  # commands are many
