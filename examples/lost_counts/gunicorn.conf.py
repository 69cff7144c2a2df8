# SPDX-License-Identifier: MIT
"""gunicorn reads this by itself when it is started in this folder."""

from aemp_gevent.contrib.gunicorn import *  # noqa: F403  # the hooks: each worker becomes a node

worker_class = "gevent"
workers = 4
dirty_apps = ["app:NoApp"]
dirty_workers = 1
