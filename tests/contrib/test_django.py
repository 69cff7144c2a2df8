# SPDX-License-Identifier: MIT
"""The Django application, in real processes: Django's settings are of a whole process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

pytest.importorskip("django")

from tests.support.networking import ROOT, line_of, process

pytestmark = pytest.mark.slow

PRELUDE = """
import os
import sys
import gevent
from gevent.fileobject import FileObject
from aemp_gevent.testing import wait_until
from django.conf import settings
folder, = sys.argv[1:]
settings.configure(
    AEMP_URL=f"aemp://shop?folder={folder}", INSTALLED_APPS=["aemp_gevent.contrib.django"], ROOT_URLCONF=__name__,
    CACHES={
        **{name: {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": name}
           for name in ("default", "prices")},
        "broken": {"BACKEND": "tests.contrib.broken_cache.BrokenCache"},
        "database": {"BACKEND": "django.core.cache.backends.db.DatabaseCache", "LOCATION": "cached"},
    },
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": f"{folder}.{os.getpid()}"}},
)
import django
django.setup()
from django.core.cache import cache, caches
from django.core.management import call_command
from django.core.signals import request_started
from django.db import connections
from aemp_gevent import default_node, grp_get, snd
from aemp_gevent.contrib.django import cache_invalidated, invalidate
urlpatterns = []
"""

SERVING = (
    PRELUDE
    + """
assert default_node.settings is None, "it must not start before a fork"
signals = []
def failing(**options):
    raise ValueError("of a receiver")
def note(cache, keys, **options):
    signals.append((cache, keys))
cache_invalidated.connect(failing)
cache_invalidated.connect(note)
call_command("createcachetable", verbosity=0)
for name in caches:
    caches[name].set_many({"a": 1, "b": 2})
request_started.send(None)
assert default_node.settings is None, "this is not a greenlet of a server"
for _ in range(2):
    gevent.spawn(request_started.send, None).get()
print("serves", flush=True)
for line in FileObject(sys.stdin):
    wait_until(lambda: len(signals) == 3, within=20)
    print([sorted(caches[name].get_many(["a", "b"])) for name in ("default", "prices")], signals,
          connections["default"].connection, flush=True)
"""
)

SCRIPT = (
    PRELUDE
    + """
for alias in ("__class__", "_settings"):
    try:
        invalidate(cache=alias)
    except Exception as error:
        print(type(error).__name__)
cache.set_many({"a": 1, "b": 2})
call_command("createcachetable", verbosity=0)
assert invalidate("a") == 2
assert cache.get_many(["a", "b"]) == {"b": 2}, "not deleted here"
no_list = ("default", 5, 1)
rubbish_of_peers = (
    (), ("default",), ("nothing", ["a"], None), ("__class__", None, None), (5, ["a"], None), ("default", [5], None),
    ("broken", ["a"], None), no_list,
)
for rubbish in rubbish_of_peers:
    for port in grp_get("django/invalidation"):
        snd(port, *rubbish)
invalidate(cache="prices")
assert invalidate("a", cache="database") == 2
for wrong in (lambda: invalidate(5), lambda: invalidate("a", version="x"), lambda: invalidate("a", cache="nothing")):
    try:
        wrong()
    except Exception as error:
        print(type(error).__name__)
default_node.flush()
"""
)


@pytest.fixture
def folder() -> Iterator[Path]:
    with TemporaryDirectory() as path:
        yield Path(path, "own")


def test_a_script_invalidates_values_of_all_processes_that_serve(folder: Path) -> None:
    with ExitStack() as stack:
        servers = [stack.enter_context(process(SERVING, str(folder))) for _ in range(2)]
        assert [line_of(server) for server in servers] == ["serves"] * 2
        ran = subprocess.run([sys.executable, "-c", SCRIPT, str(folder)], capture_output=True, text=True, timeout=90)
        assert ran.returncode == 0, ran.stderr
        assert ran.stdout.split() == ["InvalidCacheBackendError"] * 2 + ["TypeError"] * 2 + ["InvalidCacheBackendError"]
        for server in servers:
            assert server.stdin is not None
            server.stdin.write("\n")
            server.stdin.flush()
            assert line_of(server) == "[['b'], []] [('default', ['a']), ('prices', None), ('database', ['a'])] None"


def printed(program: str, *args: str) -> list[str]:
    ran = subprocess.run([sys.executable, "-c", program, *args], capture_output=True, text=True, timeout=30, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.split()


def test_process_that_has_not_joined_says_so_and_deletes_its_own_values(folder: Path) -> None:
    alone = """
cache.set("a", 1)
try:
    print(invalidate("a"))
except Exception as error:
    print(type(error).__name__)
print(cache.get("a"))
"""
    unnamed = PRELUDE.replace('f"aemp://shop?folder={folder}"', '"aemp://"')
    assert printed(unnamed + alone, str(folder)) == ["PrivateNodeError", "None"]
    assert printed(PRELUDE.replace('f"aemp://shop?folder={folder}"', "None") + alone, str(folder)) == ["0", "None"]


def test_gunicorns_hooks_enter_workers_into_the_group(folder: Path) -> None:
    hooked = """
from aemp_gevent.contrib import gunicorn, join_host
(enter,) = gunicorn._joins
join_host("app", folder=folder)
enter()
print(len(grp_get("django/invalidation")))
"""
    assert printed(PRELUDE.replace('f"aemp://shop?folder={folder}"', '"aemp://"') + hooked, str(folder)) == ["1"]


def test_invalid_url_is_refused_when_django_starts(folder: Path) -> None:
    wrong = PRELUDE.replace('f"aemp://shop?folder={folder}"', '"redis://"')
    ran = subprocess.run([sys.executable, "-c", wrong, str(folder)], capture_output=True, text=True, timeout=30)
    assert "InvalidSettingError" in ran.stderr
