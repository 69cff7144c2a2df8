# SPDX-License-Identifier: MIT
"""``aemp snd``, ``cal``, ``mon``, ``eval`` and ``spawn``: a message from the command line, and what becomes of it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from aemp_gevent.cli.arguments import Seconds, value
from aemp_gevent.cli.asking import (
    ask,
    check_is_linked,
    look,
    node_id,
    other_program,
    port_id,
    timeout_option,
    unreachable,
)
from aemp_gevent.cli.connecting import NodeOptions, connected, node_options
from aemp_gevent.cli.output import json_option, json_text, print_json, printable

if TYPE_CHECKING:
    from aemp_gevent.node.node import Node

_LOST = ("transport_error", "no_such_port", "shutdown", "spawn_refused")
"""Reasons that say that a message did not arrive."""


@click.command()
@click.argument("port")
@click.argument("message", nargs=-1, type=value)
@timeout_option
@node_options
def snd(options: NodeOptions, port: str, message: tuple[Any, ...], timeout: float) -> None:
    """Send a message to a port, and see that it arrives.

    PORT is a port's ID, such as backend#log, where log may be a registered name. What looks like JSON in MESSAGE
    (numbers, true, false, null, and whatever begins with [, { or ") is JSON, all else is text. A message that begins
    with a minus sign stands behind --.

    Exit code 1: the port does not exist, or its node cannot be reached.
    """
    with connected(options) as node:
        target = port_id(node, port)
        lost: list[tuple[Any, ...]] = []
        node.mon(target, lambda *reason: lost.append(reason))
        node.snd(target, *message)
        if "#" in target:
            ask(node, node.node_of(target), "time", timeout=timeout)  # behind the message on the same way
        else:
            _wait_for_requests(node, target, timeout)
        if lost and lost[0][:1] and lost[0][0] in _LOST:
            raise unreachable(target, lost[0])


@click.command()
@click.argument("port")
@click.argument("message", nargs=-1, type=value, required=True)
@timeout_option
@json_option
@node_options
def cal(options: NodeOptions, port: str, message: tuple[Any, ...], timeout: float, as_json: bool) -> None:
    """Send a request to a port, and print the answer.

    PORT and MESSAGE are as for 'aemp snd'. The answer is printed as JSON, and text as it stands; text that a script
    is to read as JSON, too, with --json.

    Exit code 1: there was no answer in time, the port does not exist, or it answered with an error.
    """
    with connected(options) as node:
        from aemp_gevent.errors import CallTimeout, PortDied, RemoteError  # noqa: PLC0415

        target = port_id(node, port)
        try:
            answer = node.call(target, *message, timeout=timeout)
        except PortDied as error:
            raise unreachable(target, error.reason) from None
        except RemoteError as error:
            raise click.ClickException(f"{target} answered with an error: {error.error}") from None
        except CallTimeout:
            check_is_linked(node, node.node_of(target))
            raise click.ClickException(
                f"no answer from {target} within {timeout:g} s; it may still do what it was asked"
            ) from None
        _print_value(answer, as_json=as_json)


@click.command()
@click.argument("port")
@click.option("--timeout", metavar="SECONDS", type=Seconds(min=0), help="Give up after this long, and fail.")
@json_option
@node_options
def mon(options: NodeOptions, port: str, timeout: float | None, as_json: bool) -> None:
    """Wait for a port to die, and print the reason.

    A normal death prints 'normal', any other the elements of its reason, as JSON where they are no text. PORT may be
    a node's ID: that waits for the link to it to go.

    Exit code 0: it died normally. 1: it did not, it does not exist, messages to it were lost, or --timeout came first.
    """
    with connected(options) as node:
        from gevent.event import AsyncResult  # noqa: PLC0415
        from gevent.timeout import Timeout  # noqa: PLC0415

        target = port_id(node, port)
        died: AsyncResult[tuple[Any, ...]] = AsyncResult()
        node.mon(target, lambda *reason: died.set(reason))
        try:
            reason = died.get(timeout=timeout) or ()
        except Timeout:
            check_is_linked(node, node.node_of(target))
            raise click.ClickException(f"{target} still lives after {timeout:g} s") from None
        if as_json:
            print_json(list(reason))
        else:
            click.echo(printable(" ".join(map(_text, reason))) or "normal")
        click.get_current_context().exit(1 if reason else 0)


@click.command("eval")
@click.argument("node_name", metavar="NODE")
@click.argument("code", metavar="EXPR")
@timeout_option
@json_option
@node_options
def eval_(options: NodeOptions, node_name: str, code: str, timeout: float, as_json: bool) -> None:
    """Evaluate Python on a node, and print the value.

    EXPR is an expression, or statements, which have no value. The node must be run with the setting allow_eval.
    A node of another program evaluates EXPR in its own language: a Perl node evaluates Perl, unless it is secure.
    """
    with connected(options) as node:
        other = node_id(node, node_name)
        check_may_eval(node, other, timeout)
        found = evaluate(node, other, code, timeout)
        if found is not None or as_json:
            _print_value(found, as_json=as_json)


def check_may_eval(node: Node, other: str, timeout: float) -> str:
    """Say so if a node evaluates nothing for us: it would not answer.

    Returns:
        The node's program, if that is another, which cannot be asked; else ``""``.

    Raises:
        click.ClickException: It does not, or cannot be reached.
    """
    program = other_program(node, other, timeout=timeout)
    if not program and not look(node, other, timeout=timeout)["rights"]["eval"]:
        raise click.ClickException(
            f"{other} does not evaluate code for this node: run it with allow_eval and without secure, "
            "and let no rule forbid it"
        )
    return program


def evaluate(node: Node, other: str, code: str, timeout: float) -> Any:  # whatever it comes to over there
    """Return what code comes to on another node.

    Raises:
        click.ClickException: It raised there, or there was no answer.
    """
    answer = ask(node, other, "eval", code, timeout=timeout)
    error, *results = answer if isinstance(answer, tuple) else (answer,)
    if error:
        raise click.ClickException(f"{other}: {error}")
    return results[0] if len(results) == 1 else results or None


@click.command()
@click.argument("node_name", metavar="NODE")
@click.argument("function")
@click.argument("args", nargs=-1, type=value)
@timeout_option
@node_options
def spawn(options: NodeOptions, node_name: str, function: str, args: tuple[Any, ...], timeout: float) -> None:
    """Create a port on a node, run a function in it, and print the port's ID.

    FUNCTION is a dotted name like shop.orders.serve, which the node must allow: by @spawnable, or the setting
    allow_spawn. On a Perl node it is a name like Shop::Orders::serve. ARGS are as for 'aemp snd'. The port lives on
    when this command has ended.
    """
    with connected(options) as node:
        click.echo(spawn_there(node, node_id(node, node_name), function, args, timeout))


def spawn_there(node: Node, other: str, function: str, args: tuple[Any, ...], timeout: float) -> str:
    """Spawn a port on another node, and return its ID when it has started.

    Raises:
        click.ClickException: It did not, or the node cannot be reached.
    """
    died: list[tuple[Any, ...]] = []
    port = node.spawn(other, function, *args)
    node.mon(port, lambda *reason: died.append(reason))
    program = _wait_for_requests(node, other, timeout)
    if died and died[0]:
        reason = died[0]
        if program and reason[0] == "no_such_port":
            why = (
                f"it runs {program}, and has no such function, or spawns nothing for others; only its own log says why"
            )
            raise click.ClickException(f"{function} did not start on {other}: {why}")
        if reason[0] in _LOST[:-1]:
            raise unreachable(other, reason)
        words = reason[2:] if reason[0] == "spawn_refused" else reason[1:]  # which names the function, too
        raise click.ClickException(f"{function} did not start on {other}: {' '.join(map(_text, words))}")
    return port


def _wait_for_requests(node: Node, other: str, timeout: float) -> str:
    """Wait until a node has refused what was asked of it before, if it does; return its program if that is another.

    Raises:
        click.ClickException: It cannot be reached, or does not answer.
    """
    ask(node, other, "time", timeout=timeout)
    program = other_program(node, other, timeout=timeout)
    # Asked behind it, and answered behind what it does first: its refusal is known by then. What a Perl node runs
    # dies in the next turn of its loop, and it takes no other request for a question.
    ask(node, other, *(("time",) if program else ("inspect", [])), timeout=timeout)
    return program


def _print_value(answer: Any, *, as_json: bool) -> None:
    if as_json:
        print_json(answer)
    else:
        text = _text(answer)
        # Into a pipe as it stands: click would take colours out of it.
        click.echo(printable(text, "\n\t") if sys.stdout.isatty() else text, color=True)


def _text(answer: Any) -> str:
    return answer.encode("utf-8", "backslashreplace").decode() if isinstance(answer, str) else json_text(answer)
