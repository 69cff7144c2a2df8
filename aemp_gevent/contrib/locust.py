# SPDX-License-Identifier: MIT
"""Links instead of ZeroMQ between the master and the workers of Locust.

Import it in the locustfile::

    import aemp_gevent.contrib.locust

or start Locust with ``python -m aemp_gevent.contrib.locust`` and its usual options, instead of ``locust``. Both do the
same: from then on Locust's runners make a :class:`~aemp_gevent.contrib.locust_rpc.MasterEnd` or a
:class:`~aemp_gevent.contrib.locust_rpc.WorkerEnd` of this library. Workers that fetch the locustfile from the master
(``-f -``) must be started in the second way, because they talk to the master before they import anything.

Importing it imports Locust, which monkey-patches the process.
"""

from __future__ import annotations

import sys
from importlib import import_module

from aemp_gevent.contrib.locust_rpc import MasterEnd, WorkerEnd
from aemp_gevent.contrib.locust_rpc.dispatching import mend_dispatcher
from aemp_gevent.errors import AempError

__all__ = ["MasterEnd", "WorkerEnd", "main"]

# Locust looks the classes up in this module when it needs them. Not an import statement, because few of its functions
# have type annotations.
try:
    _zmqrpc = import_module("locust.rpc.zmqrpc")
except ModuleNotFoundError as error:
    raise ImportError("aemp_gevent.contrib.locust needs Locust: run 'pip install locust'") from error
_zmqrpc.Server, _zmqrpc.Client = MasterEnd, WorkerEnd  # type: ignore[attr-defined]
mend_dispatcher()


def main() -> None:
    """Run Locust's own command, with the options of the command line.

    Raises:
        SystemExit: When Locust ends, or if a setting of the links is wrong or missing, after printing what it is.
    """
    try:
        import_module("locust.main").main()
    except AempError as error:
        sys.exit(f"locust: {error}")


if __name__ == "__main__":
    main()
