# SPDX-License-Identifier: MIT
"""Finding functions by name, and spawning on this node."""

from __future__ import annotations

import sys
import types
from uuid import uuid4

import gevent
import pytest
from gevent.event import Event
from hypothesis import given
from hypothesis import strategies as st

from aemp_gevent.errors import InvalidPortError, NoPortContextError, PortExistsError, SpawnRefusedError
from aemp_gevent.node import spawnable_functions
from aemp_gevent.node.spawnable_functions import find_for_peer, find_for_us, spawnable
from aemp_gevent.ports.context import SELF
from aemp_gevent.ports.receive import receive
from tests.support import trap_module
from tests.support.helpers import wait_until
from tests.support.seams import ports_of
from tests.support.settling import PortLike, settle


@pytest.fixture
def module(monkeypatch):
    """A module with a name of its own, whose functions spawn can name; ``module.name`` is importable."""
    module = types.ModuleType(f"spawned_{uuid4().hex}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


@pytest.fixture(autouse=True)
def marks(monkeypatch):
    """Remove marks of ``@spawnable`` after the test."""
    marks: dict[str, object] = {}
    monkeypatch.setattr(spawnable_functions, "_spawnable", marks)
    return marks


# --- names --------------------------------------------------------------------


def test_a_marked_function_goes_by_its_dotted_name(marks):
    @spawnable
    def frob():
        return "frobbed"

    name = f"{__name__}.test_a_marked_function_goes_by_its_dotted_name.<locals>.frob"
    assert marks == {name: frob}
    assert find_for_peer(name, ()) is frob
    assert find_for_us(name) is frob
    assert frob() == "frobbed", "the function itself is returned"


def test_a_function_may_be_marked_with_another_name(marks):
    @spawnable("Any::Name")
    def frob():
        return "frobbed"

    assert marks == {"Any::Name": frob}
    assert find_for_peer("Any::Name", ()) is frob
    assert find_for_us("Any::Name") is frob


def test_a_function_may_have_several_names(marks):
    @spawnable("One")
    @spawnable("Two")
    @spawnable
    def frob():
        pass

    assert len(marks) == 3
    assert set(marks.values()) == {frob}


def test_a_function_of_the_main_module_goes_by_its_programs_name_too(marks, monkeypatch):
    main = types.ModuleType("__main__")
    main.__file__ = "/somewhere/program.py"
    monkeypatch.setitem(sys.modules, "__main__", main)

    def frob():
        pass

    frob.__module__, frob.__qualname__ = "__main__", "frob"
    spawnable(frob)
    assert marks == {"__main__.frob": frob, "program.frob": frob}


def test_a_program_run_with_dash_m_goes_by_its_modules_name(marks, monkeypatch):
    main = types.ModuleType("__main__")
    main.__spec__ = types.SimpleNamespace(name="package.program")  # type: ignore[assignment]
    monkeypatch.setitem(sys.modules, "__main__", main)

    def frob():
        pass

    frob.__module__, frob.__qualname__ = "__main__", "frob"
    spawnable(frob)
    assert set(marks) == {"__main__.frob", "package.program.frob"}


@pytest.mark.parametrize(
    ("name", "function"),
    [
        pytest.param("posixpath.join", __import__("posixpath").join, id="module"),
        pytest.param(
            "xml.dom.minidom.parseString", __import__("xml.dom.minidom").dom.minidom.parseString, id="package"
        ),
        pytest.param("builtins.str.upper", str.upper, id="in-a-class"),
        pytest.param("builtins.int", int, id="class"),
    ],
)
def test_a_dotted_name_is_imported_for_us(name, function):
    assert find_for_us(name) is function


BAD_NAMES = [
    pytest.param("", id="empty"),
    pytest.param("print", id="no-module"),
    pytest.param("no_such_module_here.f", id="no-such-module"),
    pytest.param("posixpath.no_such_function", id="no-such-function"),
    pytest.param("posixpath.sep", id="no-function"),
    pytest.param("posixpath", id="a-module"),
    pytest.param("xml..dom", id="empty-part"),
    pytest.param(".posixpath.join", id="relative"),
    pytest.param("..join", id="only-dots"),
    pytest.param(print, id="a-function"),
    pytest.param(["posixpath.join"], id="unhashable"),
    pytest.param(None, id="None"),
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_is_not_a_functions_is_refused_with_advice(name):
    with pytest.raises(SpawnRefusedError, match=r"give its full name, 'package\.module\.function'|is not a function"):
        find_for_us(name)


def test_errors_of_an_import_pass_through(tmp_path, monkeypatch):
    (tmp_path / "raises_at_import.py").write_text("raise LookupError('mine')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(LookupError, match="mine"):
        find_for_us("raises_at_import.f")


def test_a_module_with_a_missing_import_is_reported(tmp_path, monkeypatch):
    (tmp_path / "lacks_an_import.py").write_text("import no_such_dependency\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
        find_for_us("lacks_an_import.f")


# --- permissions --------------------------------------------------------------


@pytest.mark.parametrize(
    ("allowed", "name"),
    [
        pytest.param(["posixpath.join"], "posixpath.join", id="full-name"),
        pytest.param(["posixpath.*"], "posixpath.join", id="pattern"),
        pytest.param(["nothing.*", "posix?ath.j*"], "posixpath.join", id="second-pattern"),
    ],
)
def test_a_peer_may_call_what_a_pattern_covers(allowed, name):
    assert find_for_peer(name, allowed) is __import__("posixpath").join


@pytest.mark.parametrize(
    ("allowed", "name"),
    [
        pytest.param([], "posixpath.join", id="nothing-allowed"),
        pytest.param(["posixpath"], "posixpath.join", id="pattern-without-star"),
        pytest.param(["POSIXPATH.*"], "posixpath.join", id="case-counts"),
        pytest.param(["join"], "posixpath.join", id="bare-name"),
        pytest.param([], "no_such_module_here.f", id="unknown-module"),
        pytest.param(["*"], None, id="None"),
        pytest.param(["*"], 7, id="number"),
        pytest.param(["*"], ["posixpath.join"], id="unhashable"),
        pytest.param(["*"], b"posixpath.join", id="bytes"),
    ],
)
def test_a_peer_is_refused_everything_else_with_the_remedy(allowed, name):
    with pytest.raises(
        SpawnRefusedError, match="mark the function @spawnable, or cover its full name, .* with allow_spawn"
    ):
        find_for_peer(name, allowed)


def test_a_peer_cannot_import_a_module_that_no_pattern_covers(tmp_path, monkeypatch):
    (tmp_path / "never_import_me.py").write_text("raise AssertionError('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SpawnRefusedError):
        find_for_peer("never_import_me.f", ["other.*"])
    assert "never_import_me" not in sys.modules


TRAPS = trap_module.__name__
COVERED = {f"{TRAPS}.{name}" for name in trap_module.COVERED}


@pytest.mark.parametrize("name", sorted(COVERED))
def test_a_pattern_covers_the_functions_that_a_module_defines(name):
    assert find_for_peer(name, [f"{TRAPS}.*"]) is vars(trap_module)[name.rpartition(".")[2]]


@pytest.mark.parametrize("attribute", sorted(set(dir(trap_module)) - set(trap_module.COVERED) - {"twice"}))
def test_a_pattern_covers_nothing_else_of_a_module(attribute):
    with pytest.raises(SpawnRefusedError):
        find_for_peer(f"{TRAPS}.{attribute}", [f"{TRAPS}.*"])


@given(st.data())
def test_no_path_of_attributes_leads_out_of_a_covered_module(data):
    found, words = trap_module, [TRAPS]
    for _ in range(data.draw(st.integers(1, 5), "steps")):
        words.append(data.draw(st.sampled_from(sorted({*dir(found), "system", "__globals__", "__class__"})), "step"))
        try:
            found = getattr(found, words[-1])
        except Exception:  # noqa: BLE001  # anything may be in the way
            break
    name = ".".join(words)
    try:
        function = find_for_peer(name, ["*"])
    except SpawnRefusedError:
        assert name not in COVERED
    else:
        assert function.__module__ == TRAPS
        assert f"{TRAPS}.{function.__qualname__}" == name


def test_another_name_of_a_covered_module_reaches_nothing(monkeypatch):
    monkeypatch.setitem(sys.modules, "shop.modules", trap_module)
    with pytest.raises(SpawnRefusedError):
        find_for_peer("shop.modules.worker", ["shop.*"])


@pytest.mark.parametrize("module", ["__main__", "__init__"])
def test_a_peer_cannot_run_a_package_again(module, tmp_path, monkeypatch):
    (tmp_path / "run_me_once").mkdir()
    (tmp_path / "run_me_once" / "__init__.py").touch()
    (tmp_path / "run_me_once" / f"{module}.py").write_text("def f(): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SpawnRefusedError):
        find_for_peer(f"run_me_once.{module}.f", ["run_me_once.*"])
    assert f"run_me_once.{module}" not in sys.modules


def test_a_function_of_the_main_module_can_be_covered(monkeypatch):
    main = types.ModuleType("__main__")
    exec("def frob(): ...", vars(main))
    monkeypatch.setitem(sys.modules, "__main__", main)
    assert find_for_peer("__main__.frob", ["__main__.*"]) is main.frob
    with pytest.raises(SpawnRefusedError):
        find_for_peer("__main__.__builtins__", ["__main__.*"])


def test_other_names_of_a_marked_function_are_refused(marks):
    """A mark covers the names that it gives, and not those under which other modules import the function."""
    spawnable(trap_module.worker)
    spawnable("Shop::worker")(trap_module.worker)
    assert find_for_peer("Shop::worker", ()) is trap_module.worker
    for name in (f"{TRAPS}.alias", "Shop::worker.__globals__", f"{TRAPS}.worker.__call__"):
        with pytest.raises(SpawnRefusedError):
            find_for_peer(name, [f"{TRAPS}.*", "Shop::*"])


@pytest.mark.parametrize("mark", [spawnable, spawnable("Shop::system")], ids=["its-name", "another-name"])
def test_a_builtin_cannot_be_marked(mark, marks):
    with pytest.raises(TypeError, match="is a builtin, which other nodes must not call: mark a function that calls it"):
        mark(trap_module.system)
    assert marks == {}


@pytest.mark.parametrize("is_below", [True, False], ids=["below", "above"])
def test_a_static_function_can_be_marked(is_below, marks):
    class Shop:
        if is_below:

            @staticmethod
            @spawnable("Shop.open")
            def open():
                return "open"
        else:

            @spawnable("Shop.open")
            @staticmethod
            def open():
                return "open"

    assert find_for_peer("Shop.open", ())() == Shop.open() == "open"


# --- spawning on this node ----------------------------------------------------


@pytest.mark.parametrize("form", ["node ID", "port", "object"])
def test_spawn_runs_the_function_with_the_new_port_as_self(node, module, form):
    seen = []
    module.init = lambda *args: seen.append((SELF(), args))
    where = {"node ID": node.NODE(), "port": node.port(), "object": PortLike(node.port())}[form]
    port = node.spawn(where, f"{module.__name__}.init", 1, [2])
    settle(node)
    assert seen == [(port, (1, [2]))]
    assert node.NODE(port) == node.NODE()
    assert port in ports_of(node), "the port outlives its init function"


def test_spawn_is_quiet_until_it_returned(node, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    name = f"quiet_{uuid4().hex}"
    (tmp_path / f"{name}.py").write_text("def init(out): out.append('ran')\n")
    out: list[str] = []
    node.spawn(node.NODE(), f"{name}.init", out)
    assert out == []
    assert name not in sys.modules, "not even its import is visible"
    settle(node)
    assert out == ["ran"]
    del sys.modules[name]


def test_spawn_called_in_a_handler_is_quiet_while_the_handler_runs(node, module):
    order = []
    module.init = lambda: order.append("init")

    def handle():
        node.spawn(node.NODE(), f"{module.__name__}.init")
        order.append("spawn returned")

    node.snd(node.port(handle))
    settle(node)
    assert order == ["spawn returned", "init"]


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        pytest.param("no_such_module_here.f", "spawn_refused", id="no-such-module"),
        pytest.param("posixpath.no_such_function", "spawn_refused", id="no-such-function"),
        pytest.param("posixpath.sep", "spawn_refused", id="no-function"),
        pytest.param("posixpath.basename", "die", id="wrong-arguments"),
        pytest.param("builtins.len", "die", id="raises"),
    ],
)
def test_monitors_fire_if_anything_fails_on_the_other_node(node, function, reason):
    deaths: list[tuple[object, ...]] = []
    node.mon(node.spawn(node.NODE(), function), lambda *why: deaths.append(why))
    assert deaths == []
    settle(node)
    [death] = deaths
    assert death[0] == reason
    if reason == "spawn_refused":
        assert death[1] == function
        assert isinstance(death[2], str)


def test_an_exception_in_the_init_function_is_the_reason_of_the_death(node, module):
    deaths: list[tuple[object, ...]] = []
    module.init = lambda: 1 / 0
    node.mon(node.spawn(node.NODE(), f"{module.__name__}.init"), lambda *why: deaths.append(why))
    settle(node)
    assert deaths == [("die", "ZeroDivisionError: division by zero")]


def test_messages_wait_while_the_init_function_runs_and_handlers_get_them_after(node, module):
    order, go_on = [], Event()

    def init():
        node.rcv(SELF(), tag=lambda *rest: order.append(rest))
        node.rcv(SELF(), lambda *msg: order.append(msg))
        go_on.wait()
        order.append("init ends")

    module.init = init
    port = node.spawn(node.NODE(), f"{module.__name__}.init")
    node.snd(port, "tag", 1)
    settle(node)
    node.snd(port, "other")
    settle(node)
    assert order == []
    go_on.set()
    wait_until(lambda: len(order) == 3, show=lambda: order)
    assert order == ["init ends", (1,), ("other",)]


def test_an_init_function_that_uses_receive_gets_the_messages(node, module):
    order = []

    def init():
        node.rcv(SELF(), tag=lambda *rest: order.append(("handler", *rest)))
        order.append(receive("wanted", timeout=5))
        order.append(receive(timeout=5))

    module.init = init
    port = node.spawn(node.NODE(), f"{module.__name__}.init")
    for message in (("tag", 1), ("wanted",), ("tag", 2)):
        node.snd(port, *message)
    wait_until(lambda: len(order) == 3, show=lambda: order)
    assert order == [("wanted",), ("tag", 1), ("handler", 2)]


def test_a_spawned_port_that_is_killed_at_once_handles_what_was_sent_before(node, module):
    """As between nodes, where spawn, messages and kill come in one packet: a kill waits its turn."""
    seen, deaths = [], []
    module.init = lambda: node.rcv(SELF(), lambda *msg: seen.append(msg))
    port = node.spawn(node.NODE(), f"{module.__name__}.init")
    node.mon(port, lambda *why: deaths.append(why))
    node.snd(port, "before")
    node.kil(port, "early")
    node.snd(port, "behind")
    settle(node)
    assert seen == [("before",)]
    assert deaths == [("early",)]


def test_a_spawned_port_whose_init_function_blocks_can_be_killed(node, module):
    seen, deaths = [], []

    def init():
        try:
            gevent.sleep(1000)
        finally:
            seen.append("thrown out")

    module.init = init
    port = node.spawn(node.NODE(), f"{module.__name__}.init")
    node.mon(port, lambda *why: deaths.append(why))
    node.kil(port, "early")
    settle(node)
    assert seen == ["thrown out"]
    assert deaths == [("early",)]


def test_spawning_an_actor_runs_its_body_on_the_spawned_port(node, module):
    seen, deaths = [], []

    @node.actor
    def body(*args):
        seen.append((SELF(), args))
        seen.append(receive(timeout=5))

    module.body = body
    port = node.spawn(node.NODE(), f"{module.__name__}.body", 1)
    node.mon(port, lambda *why: deaths.append(why))
    settle(node)
    node.snd(port, "x")
    settle(node)
    assert seen == [(port, (1,)), ("x",)]
    assert deaths == [()], "returning is a normal death"


def test_messages_sent_at_once_to_a_spawned_actor_wait_for_its_body(node, module):
    seen = []
    module.body = node.actor(lambda: seen.append(receive(timeout=0, default="nothing came")))
    node.snd(node.spawn(node.NODE(), f"{module.__name__}.body"), "early")
    settle(node)
    assert seen == [("early",)]


def test_spawned_ids_are_all_different(node, module):
    module.init = lambda: None
    spawned = {node.spawn(node.NODE(), f"{module.__name__}.init") for _ in range(100)}
    made = {node.port() for _ in range(100)}
    settle(node)
    assert len(spawned | made) == 200


def test_a_port_name_that_exists_already_is_refused(node):
    name = node.port().partition("#")[2]
    with pytest.raises(PortExistsError, match="never used twice"):
        node._spawn_here(name, "posixpath.join", (), find_for_us)


@pytest.mark.parametrize("where", [None, "", "#p", "localhost:4040", "two words"])
def test_spawning_on_an_invalid_node_is_refused_with_advice(node, where):
    with pytest.raises(InvalidPortError, match=r"as returned by port\(\)"):
        node.spawn(where, "posixpath.join")


def test_spawning_on_another_node_returns_an_id_there_and_monitors_fire(node):
    deaths: list[tuple[object, ...]] = []
    port = node.spawn("elsewhere#p", "posixpath.join")
    assert node.NODE(port) == "elsewhere"
    node.mon(port, lambda *why: deaths.append(why))
    settle(node)
    [death] = deaths
    assert death[:2] == ("transport_error", "elsewhere")
    assert "initialise_node()" in str(death[2])


def test_an_init_function_may_register_and_monitor_like_any_handler(node, module):
    seen: list[tuple[object, ...]] = []
    victim = node.port()

    def init():
        node.reg("service")
        node.mon(victim, lambda *why: seen.append((SELF(), *why)))

    module.init = init
    port = node.spawn(node.NODE(), f"{module.__name__}.init")
    settle(node)
    node.kil(victim, "why")
    settle(node)
    assert seen == [(port, "why")]
    assert node._registered("service") == port
    with pytest.raises(NoPortContextError):
        node.reg("service")
