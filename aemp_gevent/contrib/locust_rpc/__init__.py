# SPDX-License-Identifier: MIT
"""The two ends that Locust's master and workers use to talk: what :mod:`aemp_gevent.contrib.locust` gives to Locust.

They have the methods of ``Server`` and ``Client`` in ``locust.rpc.zmqrpc``. Each is a node of its own, besides the
program's default node. :mod:`aemp_gevent.contrib.locust_rpc.exchange` describes what they send each other.
"""

from aemp_gevent.contrib.locust_rpc.master_end import MasterEnd
from aemp_gevent.contrib.locust_rpc.worker_end import WorkerEnd

__all__ = ["MasterEnd", "WorkerEnd"]
