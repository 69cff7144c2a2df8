# SPDX-License-Identifier: MIT
"""Deleting cached values in all processes, and a signal with which code drops values that it keeps itself.

``LocMemCache``, Django's default, is fast because each process has its own. So a value that one process deletes is
still served by the others, until its timeout.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.cache import InvalidCacheBackendError, caches
from django.db import close_old_connections
from django.dispatch import Signal

from aemp_gevent.contrib.fan_out import FanOut
from aemp_gevent.contrib.joining import parse_url
from aemp_gevent.contrib.per_process import PerProcess
from aemp_gevent.ports.reasons import describe
from aemp_gevent.runtime.bounded_log import BoundedLog
from aemp_gevent.runtime.logs import Log
from aemp_gevent.runtime.quoting import quoted

GROUP = "django/invalidation"

_log = Log()
_complaints = BoundedLog(_log.log, "invalidation by other processes")

cache_invalidated = Signal()
"""Sent in every process when values are invalid: ``cache`` is the cache's alias, ``keys`` a list, or None for all.

The sender is None. Receivers run in a greenlet of the library, outside of a request.
"""


def invalidate(*keys: str, cache: str = "default", version: int | None = None) -> int:
    """Delete keys from a cache of all processes, and send :data:`cache_invalidated` in each of them.

    The values are deleted in this process when the call returns, and in the others some milliseconds later. Inside a
    database transaction call it with ``transaction.on_commit``: otherwise another process could read the old state
    once more, and cache it.

    Args:
        keys: The keys; none: all keys of the cache.
        cache: The cache's alias in ``CACHES``.
        version: As for ``cache.delete_many``.

    Returns:
        How many other processes there are.

    Raises:
        InvalidCacheBackendError: There is no such cache.
        TypeError: A key is not a str, or the version not an int.
        PrivateNodeError: This process has not joined other nodes, and ``AEMP_URL`` has no name. The values are deleted
            in this process, as they are after the errors that follow.
        DirectoryTimeout, DirectoryUnavailableError: It is not known where the other processes are.
        AempError: The same as :func:`~aemp_gevent.contrib.join_host`, if this process must join first.
    """
    for key in keys:
        if not isinstance(key, str):
            raise TypeError(f"invalidate() takes keys that are str, not {quoted(key)}")
    if version is not None and not isinstance(version, int):
        raise TypeError(f"invalidate() takes a version that is an int, not {quoted(version)}")
    _invalidate_here(cache, list(keys) or None, version)
    others = processes()
    return 0 if others is None else others.send(cache, list(keys) or None, version)


def processes() -> FanOut | None:
    """Return the processes that tell each other; None if the setting ``AEMP_URL`` is None.

    Raises:
        InvalidSettingError: ``AEMP_URL`` is invalid.
    """
    return _processes.get()


def _make() -> FanOut | None:
    url = getattr(settings, "AEMP_URL", "aemp://")
    return None if url is None else FanOut(GROUP, parse_url(url), _invalidated, "AEMP_URL")


_processes = PerProcess(_make)


def _invalidated(*message: Any) -> None:
    """Take a message of another process."""
    try:
        alias, keys, version = message
        is_valid = isinstance(alias, str) and (keys is None or all(isinstance(key, str) for key in keys))
        if not is_valid:
            raise ValueError("the cache is not a str, or the keys are not a list of them")
        _invalidate_here(alias, keys, version)
    # A cache's backend may raise anything, such as that its server cannot be reached, and later messages count as well.
    except Exception as error:  # noqa: BLE001
        _complaints.warn("invalidation %s by another process failed: %s", quoted(message), describe(error))
    finally:
        close_old_connections()  # DatabaseCache has one for each greenlet; requests close theirs in the same way


def _invalidate_here(alias: str, keys: list[str] | None, version: int | None) -> None:
    if alias not in settings.CACHES:  # Django takes any attribute of its own object for a cache
        raise InvalidCacheBackendError(f"The connection {quoted(alias)} doesn't exist.")
    if keys is None:
        caches[alias].clear()
    else:
        caches[alias].delete_many(keys, version=version)
    for receiver, error in cache_invalidated.send_robust(None, cache=alias, keys=keys):
        if isinstance(error, Exception):
            _log.warning("receiver %s of cache_invalidated failed", receiver, exc_info=error)
