# SPDX-License-Identifier: MIT
"""What users may import: it exists, is listed, and is documented."""

import inspect
import subprocess
import sys

import pytest

import aemp_gevent
from aemp_gevent import errors

PUBLIC = [name for name in aemp_gevent.__all__ if not name.startswith("__")]


def test_all_lists_what_the_package_exports_and_nothing_else():
    for name in PUBLIC:
        getattr(aemp_gevent, name)  # a few are imported when they are first asked for
    exported = {
        name
        for name, value in vars(aemp_gevent).items()
        if not name.startswith("_") and not inspect.ismodule(value) and name != "annotations"
    }
    assert exported == set(PUBLIC)
    # Names in capitals first, then classes, then functions, as ruff sorts them.
    assert len(set(PUBLIC)) == len(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_public_name_is_documented(name):
    thing = getattr(aemp_gevent, name)
    if name in {"DONE", "any_", "default_node"}:  # data: a string below it in the source says what it is
        return
    assert inspect.getdoc(thing), name
    if inspect.isclass(thing):
        for attribute, member in vars(thing).items():
            if not attribute.startswith("_") and callable(member):
                assert inspect.getdoc(getattr(thing, attribute)), f"{name}.{attribute}"


OURS = {
    name: thing
    for name, thing in vars(errors).items()
    if inspect.isclass(thing) and issubclass(thing, BaseException) and thing.__module__ == errors.__name__
}


def test_every_error_class_is_documented_and_the_top_level_has_twelve():
    assert all(thing.__doc__ for thing in OURS.values())
    assert len(set(OURS) & set(PUBLIC)) == 12


@pytest.mark.parametrize("name", OURS)
def test_exceptions_are_named_error_or_with_erlangs_words(name):
    assert name.endswith(("Error", "Timeout", "Died", "Killed"))


@pytest.mark.parametrize(
    ("module", "name", "new"),
    [
        pytest.param(aemp_gevent, "TlsError", "TlsError", id="moved"),
        pytest.param(aemp_gevent, "WrongThread", "WrongThreadError", id="moved-and-renamed"),
        pytest.param(aemp_gevent, "LinkBusy", "LinkBusyError", id="renamed"),
        pytest.param(errors, "CallCycle", "CallCycleError", id="renamed-there"),
    ],
)
def test_name_of_an_earlier_version_warns_and_tells_the_new_one(module, name, new):
    with pytest.warns(DeprecationWarning, match=rf"{module.__name__}.{name} .* aemp_gevent.errors.{new}$") as caught:
        assert getattr(module, name) is getattr(errors, new)
    assert [warning.filename for warning in caught] == [__file__]


@pytest.mark.parametrize("module", [aemp_gevent, errors])
@pytest.mark.parametrize("name", ["snnd", "_restore_", "warnings_"])
def test_what_there_is_not_is_an_attribute_error(module, name):
    with pytest.raises(AttributeError, match=f"has no attribute '{name}'"):
        getattr(module, name)


def test_module_functions_are_the_default_nodes_methods():
    for name in PUBLIC:
        thing = getattr(aemp_gevent, name)
        if inspect.ismethod(thing):
            assert thing.__self__ is aemp_gevent.default_node
            assert thing.__name__ == name


def test_dir_lists_what_is_imported_later_too():
    program = "import aemp_gevent; assert set(aemp_gevent.__all__) <= set(dir(aemp_gevent))"
    subprocess.run([sys.executable, "-c", program], timeout=20, check=True)


def test_a_name_that_there_is_not_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'aemp_gevent' has no attribute 'no_such_name'"):
        _ = aemp_gevent.no_such_name


def test_importing_loads_only_what_a_node_without_links_needs():
    """Counted, and not timed: how long an import takes differs too much from machine to machine, and with their load.

    Measured on CPython 3.11, a program that imports this starts in 1.4 to 1.6 times the processor time of one that
    imports gevent, with the interpreter's own start in both. Without that start the import takes about twice
    gevent's. An eighth of what is added is ``logging``, and the rest is spread over many small modules.
    """
    program = """
import sys
import gevent
before = set(sys.modules)
import aemp_gevent
print(*sorted(set(sys.modules) - before))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=True)
    loaded = done.stdout.split()
    heavy = {"OpenSSL", "cbor2", "cryptography", "dataclasses", "dns", "email", "inspect", "json", "msgpack", "secrets"}
    heavy |= {"pathlib", "socket", "ssl", "urllib"}
    assert not heavy & {name.partition(".")[0] for name in loaded}
    ours = [name for name in loaded if name.startswith("aemp_gevent")]
    assert len(loaded) - len(ours) <= 20, loaded
    assert len(ours) <= 84, ours  # one takes 0.2 ms


@pytest.mark.parametrize(
    ("enabled", "error"), [(True, ""), (False, "ImportError: aemp_gevent needs Python's global inter")]
)
def test_importing_fails_with_one_sentence_when_the_gil_is_off(enabled, error):
    program = f"import sys; sys._is_gil_enabled = lambda: {enabled}; import aemp_gevent"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20)
    last = (done.stderr.splitlines() or [""])[-1]
    assert last[: len(error)] == error if error else not last
    assert (done.returncode == 0) == enabled


def test_importing_patches_nothing_and_starts_nothing():
    program = """
import gc, socket, threading, logging
before = socket.socket
import aemp_gevent
from gevent.hub import _get_hub
assert socket.socket is before
assert _get_hub() is None, "a hub was made"
assert threading.active_count() == 1
assert not logging.getLogger("aemp_gevent").handlers
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
