# SPDX-License-Identifier: MIT
"""What users may import of ``contrib``: it exists, is documented, and costs those who do not want it nothing."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

from aemp_gevent import contrib
from aemp_gevent.contrib import (
    dashboard,
    flask,
    flask_socketio,
    gunicorn,
    log_fields,
    opentelemetry,
    prometheus,
    socketio,
)

PUBLIC = [
    *(getattr(contrib, name) for name in contrib.__all__),
    *(getattr(gunicorn, name) for name in [*gunicorn.__all__, "on_join", "on_drain", "is_draining"]),
    *(
        getattr(module, name)
        for module in (dashboard, flask, flask_socketio, log_fields, opentelemetry, prometheus, socketio)
        for name in module.__all__
    ),
]


@pytest.mark.parametrize("thing", PUBLIC, ids=lambda thing: thing.__name__)
def test_public_name_is_documented(thing: object) -> None:
    assert inspect.getdoc(thing)


@pytest.mark.slow
def test_gunicorn_and_flask_are_not_needed() -> None:
    program = "import sys; sys.modules.update(gunicorn=None, flask=None); import aemp_gevent.contrib.gunicorn"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=20)


def test_the_library_itself_does_not_bring_it() -> None:
    program = "import sys, aemp_gevent; sys.exit(any(name.startswith('aemp_gevent.contrib') for name in sys.modules))"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=20)
