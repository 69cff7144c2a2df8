# SPDX-License-Identifier: MIT
"""The errors: one tree, and texts that say what to do."""

from __future__ import annotations

import copy
import importlib
import inspect
import pickle
import pkgutil
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from greenlet import GreenletExit

import aemp_gevent
from aemp_gevent import errors

OURS = [
    error
    for error in vars(errors).values()
    if inspect.isclass(error) and issubclass(error, BaseException) and error.__module__ == errors.__name__
]


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        pytest.param(
            errors.InvalidPortError("x y"), "as returned by port(), spawn() and SELF()", id="InvalidPortError"
        ),
        pytest.param(errors.InvalidPortError("h:1", "because"), "(because)", id="InvalidPortError-why"),
        pytest.param(errors.InvalidNoderefError("x y", "why"), "write 'host:port'", id="InvalidNoderefError"),
        pytest.param(errors.NotLocalError("rcv()", "b#p", "a"), "spawn a function there", id="NotLocalError"),
        pytest.param(errors.DeadPortError("rcv()", "a#p"), "create one with port()", id="DeadPortError"),
        pytest.param(errors.NoPortContextError("psub()"), "inside 'with attach():'", id="NoPortContextError"),
        pytest.param(errors.NoPortContextError("attach()", "do this"), "do this", id="NoPortContextError-remedy"),
        pytest.param(
            errors.ReceiverBusyError("a#p", "why"), "one greenlet receives for one port", id="ReceiverBusyError"
        ),
        pytest.param(errors.NodePortError("kil()", "a"), "name a port of it", id="NodePortError"),
        pytest.param(errors.PortExistsError("a#p"), "never used twice", id="PortExistsError"),
        pytest.param(errors.AlreadyInitialisedError("a"), "make another Node()", id="AlreadyInitialisedError"),
        pytest.param(
            errors.UnknownSettingError("secrt", ["secret"]), "did you mean 'secret'?", id="UnknownSettingError"
        ),
        pytest.param(
            errors.InvalidSettingError("binds", 7, "it wants a list"), "it wants a list", id="InvalidSettingError"
        ),
        pytest.param(errors.NoSecretError(), "AEMP_SECRET", id="NoSecretError"),
        pytest.param(errors.MessageTooLargeError(9, 8), "raise the limit on both nodes", id="MessageTooLargeError"),
        pytest.param(errors.ListenError("a:1", "in use"), "there? 'binds' can name another", id="ListenError"),
        pytest.param(errors.ListenError("a:1", "no such"), "no such; 'binds' can name", id="ListenError-not-in-use"),
        pytest.param(errors.WrongThreadError("port()"), "use snd() or kil()", id="WrongThread"),
        pytest.param(
            errors.WrongThreadError("port()"),
            "or call monkey.patch_all() in the program's first lines",
            id="WrongThread-unpatched",
        ),
        pytest.param(
            errors.WrongThreadError("port()", is_patched=True),
            "threads started before monkey.patch_all() stay native, so patch first",
            id="WrongThread-patched",
        ),
        pytest.param(errors.LinkBusyError("b", 9, 8), "try again later", id="LinkBusyError"),
        pytest.param(errors.CallCycleError(["a#1", "b#2"]), "use call_async() or snd()", id="CallCycleError"),
        pytest.param(errors.CallTimeout("a#p", "x", 2), "it may still do what it was asked", id="CallTimeout"),
    ],
)
def test_the_text_says_what_to_do(error, remedy):
    assert remedy in str(error)


@pytest.mark.parametrize(
    ("error", "fact"),
    [
        pytest.param(errors.InvalidPortError(7), "7", id="InvalidPortError"),
        pytest.param(errors.NotLocalError("rcv()", "b#p", "a"), "rcv()", id="NotLocalError-call"),
        pytest.param(errors.NotLocalError("rcv()", "b#p", "a"), "'b#p'", id="NotLocalError-port"),
        pytest.param(errors.DeadPortError("rcv()", "a#p"), "'a#p'", id="DeadPortError"),
        pytest.param(errors.NoPortContextError("psub()"), "psub()", id="NoPortContextError"),
        pytest.param(errors.UnencodableMessageError("element 2", "is a set"), "element 2 is a set", id="Unencodable"),
        pytest.param(errors.MessageTooLargeError(9, 8), "9 bytes", id="MessageTooLargeError"),
        pytest.param(errors.ReceiveTimeout(1.5), "1.5 s", id="ReceiveTimeout"),
        pytest.param(errors.ResolveError("host", "no such host"), "'host': no such host", id="ResolveError"),
        pytest.param(errors.ListenError("a:1", "in use"), "a:1", id="ListenError"),
        pytest.param(errors.WrongThreadError("port()"), "port()", id="WrongThread"),
        pytest.param(errors.LinkBusyError("b", 9, 8), "b has 9 unsent bytes", id="LinkBusyError"),
        pytest.param(errors.UnknownSettingError("zzz", ["secret"]), "'zzz'", id="UnknownSettingError"),
        pytest.param(errors.CallCycleError(["a#1", "b#2"]), "a#1 -> b#2 -> a#1", id="CallCycleError"),
        pytest.param(errors.CallTimeout("a#p", "x", 2), "a#p did not answer 'x' within 2 s", id="CallTimeout"),
        pytest.param(errors.PortDied("a#p", ("why",)), "port a#p died: ('why',)", id="PortDied"),
        pytest.param(errors.PortDied("a#p", ()), "port a#p died normally", id="PortDied-normally"),
        pytest.param(
            errors.RemoteError("a#p", "E: x", "trace"), "a#p answered with an error: E: x\n  | trace", id="RemoteError"
        ),
    ],
)
def test_the_text_holds_the_facts(error, fact):
    assert fact in str(error)


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        pytest.param(errors.InvalidPortError, ValueError, id="InvalidPortError"),
        pytest.param(errors.InvalidNoderefError, ValueError, id="InvalidNoderefError"),
        pytest.param(errors.UnknownSettingError, TypeError, id="UnknownSettingError"),
        pytest.param(errors.InvalidSettingError, ValueError, id="InvalidSettingError"),
        pytest.param(errors.UnencodableMessageError, TypeError, id="UnencodableMessageError"),
        pytest.param(errors.MessageTooLargeError, ValueError, id="MessageTooLargeError"),
        pytest.param(errors.ReceiveTimeout, TimeoutError, id="ReceiveTimeout"),
        pytest.param(errors.CallTimeout, TimeoutError, id="CallTimeout"),
        pytest.param(errors.ResolveError, OSError, id="ResolveError"),
        pytest.param(errors.ListenError, OSError, id="ListenError"),
        pytest.param(errors.PortKilled, GreenletExit, id="PortKilled"),
    ],
)
def test_errors_are_also_what_python_calls_them(error, builtin):
    assert issubclass(error, builtin)


@pytest.mark.parametrize("error", OURS, ids=lambda error: error.__name__)
def test_every_error_belongs_to_the_one_tree_and_says_what_it_is(error):
    assert error.__doc__
    if error is not errors.PortKilled:
        assert issubclass(error, errors.AempError)


def test_a_kill_is_not_caught_by_code_that_catches_errors():
    assert not issubclass(errors.PortKilled, Exception)
    assert not issubclass(errors.PortKilled, errors.AempError)


@pytest.mark.parametrize("reason", [(), ("die", "text"), (1, None)])
def test_a_kill_carries_its_reason(reason):
    assert errors.PortKilled(*reason).reason == reason


def test_errors_keep_their_facts_for_programs():
    assert errors.InvalidPortError("x").port == "x"
    assert errors.InvalidNoderefError("x", "why").component == "x"
    assert errors.NotLocalError("rcv()", "b#p", "a").port == "b#p"
    assert errors.DeadPortError("rcv()", "a#p").port == "a#p"
    assert errors.UnknownSettingError("x", []).name == "x"
    assert errors.InvalidSettingError("x", 1, "why").name == "x"
    assert errors.UnencodableMessageError("here", "why").where == "here"
    assert (errors.MessageTooLargeError(9, 8).size, errors.MessageTooLargeError(9, 8).limit) == (9, 8)
    assert errors.ReceiveTimeout(2).timeout == 2
    assert errors.ResolveError("x", "why").component == "x"
    assert errors.ListenError("x", "why").endpoint == "x"
    for is_patched in (False, True):
        error = errors.WrongThreadError("x()", is_patched=is_patched)
        assert error.call == "x()"
        assert len(str(error).split()) <= 30, "somebody reads this in a hurry"
    busy = errors.LinkBusyError("b", 9, 8)
    assert (busy.node, busy.unsent, busy.high_water) == ("b", 9, 8)
    died = errors.PortDied("a#p", ("why", 1))
    assert (died.port, died.reason) == ("a#p", ("why", 1))
    assert errors.CallCycleError(["a", "b"]).ports == ("a", "b")
    late = errors.CallTimeout("a#p", "x", 2)
    assert (late.port, late.tag, late.timeout) == ("a#p", "x", 2)
    remote = errors.RemoteError("a#p", "E: x", "trace")
    assert (remote.port, remote.error, remote.traceback) == ("a#p", "E: x", "trace")


def test_deaths_of_one_port_with_one_reason_are_equal():
    died = errors.PortDied("a#p", ("why", [1]))
    assert died == errors.PortDied("a#p", ("why", [1]))
    assert hash(died) == hash(errors.PortDied("a#p", ("why", [1])))
    assert died != errors.PortDied("a#p", ())
    assert died != ("a#p", ("why", [1]))


# --- errors that other machinery copies -------------------------------------------------------

PACKAGE = Path(aemp_gevent.__file__).parent


def all_errors() -> set[type[BaseException]]:
    """Return every exception class that the package defines, in whatever module."""
    for module in pkgutil.walk_packages([str(PACKAGE)], "aemp_gevent."):
        if not module.name.endswith(("__main__", "contrib.locust")):  # which do something when they are imported
            importlib.import_module(module.name)
    found: set[type[BaseException]] = set()
    due: list[type[BaseException]] = [BaseException]
    while due:
        for error in due.pop().__subclasses__():
            if error not in found:
                found.add(error)
                due.append(error)
    # The command's own, which are click's, never leave its process.
    return {error for error in found if re.match(r"aemp_gevent\.(?!cli)", error.__module__)}


def sample_of(error: type[BaseException]) -> BaseException:
    """Return an instance, made of texts where the class wants arguments."""
    for given in (
        [("a#p", "why", "more", "and more")[:count] for count in range(5)],
        [
            (["a", "b"],),
            (1, 2),
            ({"m": "f"}, 1.0),
            ("f", 1.0, 2),
            ("p", ("die", "x")),
            ("p", "t", 1.0),
            ("n", ["a"]),
            ("n", "p"),
            (1.0, 2, "z"),
        ],
    ):
        for args in given:
            try:
                return error(*args)
            except (TypeError, ValueError, AttributeError):
                continue
    raise AssertionError(f"give an example of {error}")


@pytest.mark.parametrize(
    "copied",
    [
        pytest.param(lambda error: pickle.loads(pickle.dumps(error)), id="pickle"),
        pytest.param(lambda error: pickle.loads(pickle.dumps(error, 2)), id="old-pickle"),
        pytest.param(copy.copy, id="copy"),
        pytest.param(copy.deepcopy, id="deepcopy"),
    ],
)
def test_every_error_survives_being_copied(copied: Callable[[BaseException], BaseException]) -> None:
    classes = all_errors()
    assert len(classes) > 40
    for error in map(sample_of, sorted(classes, key=str)):
        other = copied(error)
        assert type(other) is type(error)
        assert (str(other), other.args, vars(other)) == (str(error), error.args, vars(error))


def fail_in_a_process() -> None:
    raise errors.CallTimeout("a#p", "tag", 1.5)


@pytest.mark.slow
def test_error_reaches_the_caller_of_a_process_pool() -> None:
    """A pool of processes hangs, or breaks, if the error of a job cannot be unpickled."""
    code = """
        from concurrent.futures import ProcessPoolExecutor
        from tests.test_errors import fail_in_a_process
        if __name__ == "__main__":
            with ProcessPoolExecutor(1) as pool:
                print(repr(pool.submit(fail_in_a_process).exception(timeout=20)))
    """
    ran = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60)
    assert "CallTimeout" in ran.stdout and "did not answer 'tag' within 1.5 s" in ran.stdout, ran.stderr


def test_traceback_of_a_remote_error_is_still_there_in_its_copy() -> None:
    error = copy.copy(errors.RemoteError("a#p", "E: x", "Traceback\n  line\nE: x"))
    assert str(error) == "a#p answered with an error: E: x\n  | Traceback\n  |   line\n  | E: x"


def test_text_of_an_error_is_one_short_printable_line() -> None:
    for hostile in ("x\nCRITICAL forged\x1b[31m", "x" * 10_000_000, ["y" * 10_000_000]):
        text = str(errors.InvalidPortError(hostile))
        assert text.isprintable()
        assert len(text) < 1000
        assert str(errors.FramingError(hostile)).isprintable()
