# SPDX-License-Identifier: MIT
"""``aemp snd``, ``cal``, ``mon``, ``eval`` and ``spawn``: use ports from the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from aemp_gevent.cli.arguments import Seconds, value
from aemp_gevent.cli.command_node import NodeOptions, connected, node_options
from aemp_gevent.cli.node_queries import (
    ask,
    check_is_linked,
    look,
    node_id,
    other_program,
    port_id,
    timeout_option,
    unreachable,
)
from aemp_gevent.cli.output import echo, echo_value, json_option, json_text, print_json
from aemp_gevent.wire.vocabulary import EVAL, INSPECT, TIME

if TYPE_CHECKING:
    from aemp_gevent.node.node import Node

_LOST = ("transport_error", "no_such_port", "shutdown", "spawn_refused")
"""Tags of reasons which mean that a message did not arrive."""


@click.command()
@click.argument("port")
@click.argument("message", nargs=-1, type=value)
@timeout_option
@node_options
def snd(options: NodeOptions, port: str, message: tuple[Any, ...], timeout: float) -> None:
    """Send a message to a port, and wait until it has arrived.

    PORT is a port's ID, such as backend#log, where log may be a registered name. Each element of MESSAGE that looks
    like JSON (numbers, true, false, null, and everything that begins with [, { or ") is parsed as JSON; everything else
    is text. Put -- before a message that begins with a minus sign.

    Exit code 1: the port does not exist, or its node cannot be reached.
    """
    with connected(options) as node:
        target = port_id(node, port)
        lost: list[tuple[Any, ...]] = []
        node.mon(target, lambda *reason: lost.append(reason))
        node.snd(target, *message)
        if "#" in target:
            ask(node, node.node_of(target), TIME, timeout=timeout)  # follows the message on the same link
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

    PORT and MESSAGE are as for 'aemp snd'. The answer is printed as JSON, except that a text is printed as it is; with
    --json it is printed as JSON, too.

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
        except CallTimeout as error:
            check_is_linked(node, node.node_of(target))
            blocked = f", and its node is {error.blocked}" if error.blocked else ""
            raise click.ClickException(
                f"no answer from {target} within {timeout:g} s; it may still handle the request{blocked}"
            ) from None
        _print_value(answer, as_json=as_json)


@click.command()
@click.argument("port")
@click.option("--timeout", metavar="SECONDS", type=Seconds(min=0), help="Fail after this time.")
@json_option
@node_options
def mon(options: NodeOptions, port: str, timeout: float | None, as_json: bool) -> None:
    """Wait for a port to die, and print the reason.

    After a normal death, 'normal' is printed; otherwise the elements of the reason, as JSON unless they are text. PORT
    may be a node's ID, to wait for the loss of the link to it.

    Exit code 0: the port died normally. 1: it died otherwise, it does not exist, messages to it were lost, or --timeout
    expired.
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
            raise click.ClickException(f"{target} is still alive after {timeout:g} s") from None
        if as_json:
            print_json(list(reason))
        else:
            echo(" ".join(map(_text, reason)) or "normal")
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
    A Perl node evaluates EXPR as Perl, unless it is secure.
    """
    with connected(options) as node:
        other = node_id(node, node_name)
        check_may_eval(node, other, timeout)
        found = evaluate(node, other, code, timeout)
        if found is not None or as_json:
            _print_value(found, as_json=as_json)


def check_may_eval(node: Node, other: str, timeout: float) -> str:
    """Check that a node evaluates code for us, as it would not answer otherwise.

    Returns:
        The node's program if it is another one, for which this cannot be checked; otherwise ``""``.

    Raises:
        click.ClickException: It does not evaluate code, or cannot be reached.
    """
    program = other_program(node, other, timeout=timeout)
    if not program and not look(node, other, timeout=timeout)["rights"]["eval"]:
        raise click.ClickException(
            f"{other} does not evaluate code for this node: run it with allow_eval and without secure, "
            "and let no rule forbid it"
        )
    return program


def evaluate(node: Node, other: str, code: str, timeout: float) -> Any:  # any value
    """Evaluate code on another node, and return its value.

    Raises:
        click.ClickException: The code raised an exception, or the node did not answer.
    """
    answer = ask(node, other, EVAL, code, timeout=timeout)
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

    FUNCTION is a dotted name such as shop.orders.serve, which the node must allow by @spawnable or the setting
    allow_spawn. On a Perl node it is a name such as Shop::Orders::serve. ARGS are as MESSAGE for 'aemp snd'. The port
    outlives this command.
    """
    with connected(options) as node:
        echo(spawn_there(node, node_id(node, node_name), function, args, timeout))


def spawn_there(node: Node, other: str, function: str, args: tuple[Any, ...], timeout: float) -> str:
    """Spawn a port on another node, and return its ID when it has started.

    Raises:
        click.ClickException: It did not start, or the node cannot be reached.
    """
    died: list[tuple[Any, ...]] = []
    port = node.spawn(other, function, *args)
    node.mon(port, lambda *reason: died.append(reason))
    program = _wait_for_requests(node, other, timeout)
    if died and died[0]:
        reason = died[0]
        if program and reason[0] == "no_such_port":
            why = f"it runs {program}, which lacks the function or spawns nothing for other nodes; its log says why"
            raise click.ClickException(f"{function} did not start on {other}: {why}")
        if reason[0] in _LOST[:-1]:
            raise unreachable(other, reason)
        words = (
            reason[2:] if reason[0] == "spawn_refused" else reason[1:]
        )  # whose second element is the function's name
        raise click.ClickException(f"{function} did not start on {other}: {' '.join(map(_text, words))}")
    return port


def _wait_for_requests(node: Node, other: str, timeout: float) -> str:
    """Wait until a node has handled earlier requests, so that their refusal is known; return :func:`other_program`.

    Raises:
        click.ClickException: It cannot be reached, or does not answer.
    """
    ask(node, other, TIME, timeout=timeout)
    program = other_program(node, other, timeout=timeout)
    # This request follows the others and is answered after them, so a refusal has arrived by then. A second one,
    # because a failing port on a Perl node dies only in the next turn of its loop; Perl answers no other request.
    ask(node, other, *((TIME,) if program else (INSPECT, [])), timeout=timeout)
    return program


def _print_value(answer: Any, *, as_json: bool) -> None:
    if as_json:
        print_json(answer)
    else:
        echo_value(_text(answer))


def _text(answer: Any) -> str:
    return answer.encode("utf-8", "backslashreplace").decode() if isinstance(answer, str) else json_text(answer)
