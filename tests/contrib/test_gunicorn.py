# SPDX-License-Identifier: MIT
"""gunicorn's hooks, without gunicorn; the tests of the examples have the real one."""

from __future__ import annotations

import os
import tempfile
from types import SimpleNamespace
from typing import Any

import pytest
from gevent import monkey

from aemp_gevent.contrib import gunicorn, join_host
from aemp_gevent.contrib.gunicorn import _name_of
from tests.networking import line_of, node_factory, process


def config(proc_name: str | None = None, **facts: Any) -> Any:
    usual = {"chdir": "/srv/app", "default_proc_name": "app:app", "bind": ["127.0.0.1:8000"]}
    return SimpleNamespace(settings={"proc_name": SimpleNamespace(value=proc_name)}, **{**usual, **facts})


def test_one_line_in_the_configuration_brings_the_hooks_and_nothing_else() -> None:
    names: dict[str, Any] = {}
    exec("from aemp_gevent.contrib.gunicorn import *", names)
    assert set(names) - {"__builtins__"} == {"post_worker_init", "worker_exit"}


def test_name_is_the_same_for_all_workers_of_one_application_at_one_address() -> None:
    names = [
        _name_of(config()),
        _name_of(config(chdir="/srv/other")),
        _name_of(config(default_proc_name="app:other")),
        _name_of(config(bind=["127.0.0.1:8001"])),
    ]
    assert len(set(names)) == 4
    assert _name_of(config()) == names[0]
    assert all(name.startswith("gunicorn-") for name in names)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        pytest.param("shop", "shop", id="plain"),
        pytest.param("my shop/v2", "my-shop-v2", id="odd"),
        pytest.param("../x", "-x", id="dots"),
        pytest.param("x" * 50, "x" * 40, id="long"),
        pytest.param("...", "gunicorn", id="nothing-left"),
    ],
)
def test_process_name_is_the_name(given: str, name: str) -> None:
    assert _name_of(config(given)) == name


def test_other_kinds_of_workers_are_told_what_to_do() -> None:
    class SyncWorker:
        cfg = config()

    with pytest.raises(RuntimeError, match="SyncWorker has none: start gunicorn with --worker-class gevent"):
        gunicorn.post_worker_init(SyncWorker())


WORKER = """
import logging, sys, tempfile
from types import SimpleNamespace
import gevent
tempfile.tempdir = sys.argv[1]
from aemp_gevent import *
from aemp_gevent.contrib import gunicorn
class GeventWorker:
    alive, log = True, logging
    cfg = SimpleNamespace(settings={"proc_name": SimpleNamespace(value="app")})
@gunicorn.on_join
def register():
    print("joins", flush=True)
    sys.stdin.readline()
    grp_reg("members", port())
gunicorn.post_worker_init(GeventWorker())
print("serves", flush=True)
gevent.wait()
"""


@pytest.mark.slow
def test_worker_serves_nobody_before_the_others_know_what_it_registered() -> None:
    with tempfile.TemporaryDirectory() as folder, node_factory() as make_node:
        node = make_node(None)
        join_host("app", folder=f"{folder}/aemp-{os.geteuid()}", node=node)
        with process(WORKER, folder) as worker:
            assert worker.stdin is not None
            assert line_of(worker) == "joins"
            worker.stdin.write("\n")
            worker.stdin.flush()
            # This node hears nothing as long as its loop stands still.
            readable = monkey.get_original("select", "select")([worker.stdout], [], [], 1.0)[0]
            assert not readable, "it serves already"
            assert line_of(worker) == "serves"
            assert len(node.db_keys("members")) == 1
