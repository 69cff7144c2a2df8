# SPDX-License-Identifier: MIT
"""gunicorn's hooks, without gunicorn; the tests of the examples have the real one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from aemp_gevent.contrib import gunicorn
from aemp_gevent.contrib.gunicorn import _name_of


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
