# SPDX-License-Identifier: MIT
"""Compiled modules: what is installed with and without a compiler, and that a program can do without them.

``AEMP_TEST_WHEELS=1`` builds a wheel for each Python that is found, and downloads what it depends on.
"""

from __future__ import annotations

import ast
import gc
import inspect
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import zipfile
from enum import Enum
from functools import partial
from importlib import import_module
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import gevent
import pytest

import aemp_gevent
from aemp_gevent.node.local_node import LocalNode
from aemp_gevent.ports.receive import get, receive
from tests.support.helpers import wait_until
from tests.support.native import threading
from tests.support.networking import ROOT

ROUND_TRIP = """
import sys
import aemp_gevent
from aemp_gevent import attach, port, receive, snd
with attach() as me:
    snd(port(lambda back, text: snd(back, text.upper())), me, "round")
    print(aemp_gevent.is_compiled, *receive(timeout=10))
"""

SOURCES = ("LICENSE", "MANIFEST.in", "README.md", "aemp_command", "aemp_gevent", "docs/aemp.1")
METADATA = ("pyproject.toml", "setup.cfg", "setup.py")


def run(program: list[object], folder: Path, **variables: str) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AEMP_", "COVERAGE_", "PYTHON"))}
    command = [str(word) for word in program]
    done = subprocess.run(
        command, cwd=folder, env=kept | variables, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The sources of the package, without compiled modules."""
    clone = tmp_path / "clone"
    for name in (*SOURCES, *METADATA):
        target = clone / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        else:
            shutil.copy(ROOT / name, target)
    return clone


def typed_modules(package: Path) -> list[Path]:
    """Return the .pxd files of modules; one without a module declares C functions only."""
    return [types for types in package.rglob("*.pxd") if types.with_suffix(".py").exists()]


# --- one source, two builds -------------------------------------------------------------------


@pytest.mark.parametrize(("wish", "compiled"), [("1", False), ("yes", False), ("", True), ("0", True)])
def test_sources_are_preferred_on_request(clone: Path, wish: str, compiled: bool) -> None:
    for types in typed_modules(clone / "aemp_gevent"):
        types.with_suffix(EXTENSION_SUFFIXES[0]).write_text("fit for no interpreter")
    program = [sys.executable, "-c", ROUND_TRIP]
    if compiled:
        with pytest.raises(AssertionError, match="ImportError"):
            run(program, clone, AEMP_PURE_PYTHON=wish)
    else:
        assert run(program, clone, AEMP_PURE_PYTHON=wish) == "False ROUND\n"


def test_sources_are_used_where_greenlets_have_another_layout() -> None:
    """Compiled modules would refuse to be imported."""
    other = """
import gevent, greenlet
class Other(greenlet.greenlet):
    __slots__ = ("more",)
greenlet.greenlet = Other
"""
    program: list[object] = [sys.executable, "-c", other + ROUND_TRIP]
    assert run(program, ROOT, AEMP_PURE_PYTHON="0") == "False ROUND\n"


def test_every_module_with_types_is_compiled_or_none_is() -> None:
    for types in typed_modules(Path(aemp_gevent.__file__).parent):
        name = ".".join(("aemp_gevent", *types.relative_to(ROOT / "aemp_gevent").with_suffix("").parts))
        file = import_module(name).__file__
        assert file is not None
        assert file.endswith(".py") != aemp_gevent.is_compiled, name


def declared_in(types: Path) -> dict[str, tuple[str, set[str]]]:
    """Return the classes that a .pxd declares, each with its base and its own attributes."""
    found: dict[str, tuple[str, set[str]]] = {}
    for line in types.read_text().splitlines():
        if head := re.match(r"cdef class (\w+)(?:\((\w+)\))?:", line):
            found[head[1]] = head[2] or "", set()
            attributes = found[head[1]][1]
        elif fields := re.match(r"    cdef (?:public )?(?:unsigned )?(?:long )?\w+ (.*)", line):
            attributes |= set(fields[1].split(", "))
    return found


def test_every_attribute_of_a_class_with_types_is_declared() -> None:
    """Otherwise setting it raises an error, but only in compiled modules."""
    files = typed_modules(Path(aemp_gevent.__file__).parent)
    classes = {name: declared for types in files for name, declared in declared_in(types).items()}
    checked = 0
    for types in files:
        for node in ast.parse(types.with_suffix(".py").read_text()).body:
            if not isinstance(node, ast.ClassDef) or node.name not in classes:
                continue
            declared: set[str] = set()
            name = node.name
            while name:
                name, attributes = classes.get(name, ("", set()))  # greenlet, which has none of its own
                declared |= attributes
            stored = {
                each.attr
                for each in ast.walk(node)
                if isinstance(each, ast.Attribute)
                and isinstance(each.ctx, ast.Store)
                and isinstance(each.value, ast.Name)
                and each.value.id == "self"
            }
            assert stored <= declared, f"{types}: {node.name}"
            checked += len(stored)
    assert checked > 30


ANNOTATION = re.compile(r": (?:[^,)\[]|\[[^]]*\])*?(?= = |,|\))")


def documented_in(source: Path) -> dict[str, str]:
    """Return the signatures of the functions in a source, each with its docstring, which may begin with a signature."""
    pattern = r"def (\w+\([^)]*\)).*:\n +\"\"\"(?:(\w+\(.*\))\\n--\\n\\n\\\n +)?([^\"]*)\"\"\""
    functions = re.finditer(pattern, source.read_text())
    return {ANNOTATION.sub("", each[2] or each[1]).replace(" = ", "="): each[3] for each in functions}


def test_what_is_written_by_hand_for_compiled_modules_takes_the_place_of_a_source() -> None:
    by_hand = list((ROOT / "aemp_gevent").rglob("*.pyx"))
    for path in by_hand:
        documented = documented_in(path)
        assert documented, path
        assert documented == documented_in(path.with_suffix(".py")), path
        assert path.with_suffix(".pxd").exists(), path
    assert by_hand


def test_help_and_signature_of_snd_are_the_same_in_both_builds() -> None:
    assert str(inspect.signature(aemp_gevent.snd)).replace(": 'object'", "").replace(": 'Any'", "") in {
        "(port, *msg)",
        "(port, *msg) -> 'None'",
    }
    assert (aemp_gevent.snd.__doc__ or "").startswith("Send a message to a port: queue it and return.")
    assert aemp_gevent.snd.__name__ == "snd"


def test_help_and_signature_of_receive_are_the_same_in_both_builds() -> None:
    shown = {each.__name__: re.sub(": '[^']*'| -> .*", "", str(inspect.signature(each))) for each in (receive, get)}
    assert {name: text.replace(" = ", "=") for name, text in shown.items()} == {
        "receive": "(*patterns, timeout=None, default='raise ReceiveTimeout')",
        "get": "(tag, timeout=None)",
    }
    assert (inspect.getdoc(receive) or "").startswith("Return the first queued message that matches any pattern")
    assert receive.__name__ == "receive"
    assert pickle.loads(pickle.dumps(receive)) is receive


@pytest.mark.skipif(not aemp_gevent.is_compiled, reason="Python's own tuples are tracked until they are looked at")
def test_only_messages_that_can_be_in_a_reference_cycle_are_seen_by_the_garbage_collector(node: LocalNode) -> None:
    def message(*elements: object) -> tuple[object, ...]:
        node.snd(me, *elements)
        return receive(timeout=10)  # type: ignore[no-any-return]

    enabled = gc.isenabled()
    gc.disable()  # it stops tracking what it looked at
    try:
        with node.attach() as me:
            tracked = [gc.is_tracked(message(*elements)) for elements in [("plain", 1), (), ([],), (1, {}, 2)]]
    finally:
        if enabled:
            gc.enable()
    assert tracked == [False, False, True, True]


# --- signals and threads, which pure Python lets in between any two steps -----------------------


def test_a_port_that_runs_only_compiled_code_lets_signals_timers_and_threads_in(node: LocalNode) -> None:
    """It never ends, and leaves no place where the interpreter looks for these by itself."""
    port = node.port()
    node.rcv(port, "go", partial(node.snd, port, "go"))
    seen: list[str] = []

    def call() -> None:
        os.kill(os.getpid(), signal.SIGUSR1)
        seen.append("thread")

    before = signal.signal(signal.SIGUSR1, lambda *_: seen.append("signal"))
    try:
        node.snd(port, "go")
        thread = threading.Thread(target=call)
        thread.start()
        with node.after(0, seen.append, "timer"):
            wait_until(lambda: sorted(seen) == ["signal", "thread", "timer"], within=60, show=lambda: seen)
    finally:
        node.kil(port)
        signal.signal(signal.SIGUSR1, before)
    thread.join(10)


class Tag(str, Enum):
    """A text, though not exactly a str: types of compiled code are checked at run time."""

    DO = "do"


class Number(float):
    """A number, but not exactly a float."""


def test_subclasses_of_what_is_documented_are_taken(node: LocalNode) -> None:
    got: list[object] = []
    port = node.rcv(node.port(), Tag.DO, lambda *rest: got.append(rest))
    node.snd(port, Tag.DO, 1)
    node.snd(port, "do", 2)
    wait_until(lambda: got == [(1,), (2,)], show=lambda: got)
    with node.attach() as me:
        node.snd(me, Tag.DO, 3)
        node.snd(me, "do", 4)
        assert get(Tag.DO, timeout=Number(10)) == (3,)
        assert receive(Tag.DO, timeout=Number(10)) == ("do", 4)
        with pytest.raises(TypeError, match="5 is not a pattern"):
            get(5, timeout=0)  # type: ignore[arg-type]


# --- building ---------------------------------------------------------------------------------

BUILD = "import sys; {0}from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
NO_CYTHON = "sys.modules['Cython'] = None; "

needs_compiler = pytest.mark.skipif(
    shutil.which(os.environ.get("CC", sysconfig.get_config_var("CC").split()[0])) is None, reason="no C compiler"
)


def build(clone: Path, program: str = BUILD.format(""), **variables: str) -> Path:
    """Build a wheel with what is installed here."""
    out = run([sys.executable, "-c", program, clone.parent], clone, **variables)
    return clone.parent / out.splitlines()[-1]


def install_beside(wheel: Path) -> tuple[Path, Path]:
    """Install a wheel into a fresh environment, which finds all else where the tests have it. Return its Python."""
    home = wheel.parent / "venv"
    run([sys.executable, "-m", "venv", home], wheel.parent)
    python = home / "bin" / "python"
    packages = Path(run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], home).strip())
    # Not a .pth file: those of an editable installation there must not be read.
    (packages / "beside.pth").write_text(f"{Path(gevent.__file__).parents[1]}\n")
    run([python, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", wheel], home)
    return python, packages


@pytest.mark.slow
@needs_compiler
def test_wheel_has_compiled_modules_that_work_and_can_be_done_without(clone: Path) -> None:
    pytest.importorskip("Cython")
    wheel = build(clone, AEMP_PURE_PYTHON="0", CFLAGS="-O0")
    python, packages = install_beside(wheel)
    assert run([python, "-c", ROUND_TRIP], clone.parent) == "True ROUND\n"
    assert run([python, "-c", ROUND_TRIP], clone.parent, AEMP_PURE_PYTHON="1") == "False ROUND\n"
    assert list((packages / "aemp_gevent").rglob("*.c")) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "variables"),
    [
        pytest.param(BUILD.format(""), {"CC": "/nonexistent/cc"}, id="compiler"),
        pytest.param(BUILD.format(NO_CYTHON), {}, id="Cython"),
        pytest.param(BUILD.format(""), {"AEMP_PURE_PYTHON": "1"}, id="wish"),
    ],
)
def test_wheel_that_is_built_without_works_too(clone: Path, program: str, variables: dict[str, str]) -> None:
    with zipfile.ZipFile(build(clone, program, **variables)) as wheel:
        assert not [name for name in wheel.namelist() if name.endswith((".so", ".c"))]
        wheel.extractall(clone.parent / "installed")
    assert run([sys.executable, "-c", ROUND_TRIP], clone.parent / "installed") == "False ROUND\n"


PYTHONS = [f"python3.{minor}" for minor in (10, 11, 12, 13, 14)]


@pytest.mark.slow
@needs_compiler
@pytest.mark.skipif(not os.environ.get("AEMP_TEST_WHEELS"), reason="downloads, and takes minutes: AEMP_TEST_WHEELS=1")
@pytest.mark.parametrize("name", PYTHONS)
def test_wheel_of_each_python_works(clone: Path, name: str) -> None:
    installed = [shutil.which(name), *Path("~/.pyenv/versions").expanduser().glob(f"{name[6:]}.*/bin/{name}")]
    # Of pyenv there may be a shim for a Python that was not chosen.
    works = (
        found for found in installed if found and not subprocess.run([found, "-c", ""], capture_output=True).returncode
    )
    found = next(works, None)
    if found is None:
        pytest.skip(f"{name} is not installed")
    home = clone.parent / "venv"
    run([found, "-m", "venv", home], clone.parent)
    python = home / "bin" / "python"
    run([python, "-m", "pip", "install", "--quiet", clone], clone.parent, AEMP_PURE_PYTHON="0")
    assert run([python, "-c", ROUND_TRIP], clone.parent) == "True ROUND\n"
    assert run([python, "-c", ROUND_TRIP], clone.parent, AEMP_PURE_PYTHON="1") == "False ROUND\n"
