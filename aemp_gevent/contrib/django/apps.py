# SPDX-License-Identifier: MIT
"""The configuration of the Django application, which starts nothing before the process serves."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.signals import request_started

from aemp_gevent.contrib.django.invalidation import processes
from aemp_gevent.contrib.gunicorn import on_join
from aemp_gevent.contrib.joining import parse_url


class AempConfig(AppConfig):  # type: ignore[misc]  # Django has no types
    """Enters the group of processes when this one serves: a node that is started earlier does not survive a fork.

    That is when gunicorn's hooks have made a worker a node, or, with a name in ``AEMP_URL``, when the first
    request begins.
    """

    name = "aemp_gevent.contrib.django"
    label = "aemp_gevent"
    verbose_name = "aemp_gevent"

    def ready(self) -> None:
        """Register, when Django has loaded all applications."""
        url = getattr(settings, "AEMP_URL", "aemp://")
        if url is None:
            return
        parsed = parse_url(url)
        if parsed.name:

            def joined(**_options: Any) -> None:
                if parsed.join_in_request("AEMP_URL") is not None:
                    _enter()

            # Not weakly, because nothing else refers to the function.
            request_started.connect(joined, weak=False, dispatch_uid="aemp_gevent")
        else:
            on_join(_enter)


def _enter() -> None:
    others = processes()
    if others is not None:
        others.open()
