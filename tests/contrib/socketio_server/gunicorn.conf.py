# SPDX-License-Identifier: MIT
from aemp_gevent.contrib.gunicorn import *  # noqa: F403

graceful_timeout = 1
