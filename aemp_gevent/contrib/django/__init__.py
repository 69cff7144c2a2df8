# SPDX-License-Identifier: MIT
"""A Django application: processes that serve become nodes, and tell each other which cached values are stale.

Add ``"aemp_gevent.contrib.django"`` to ``INSTALLED_APPS``. ``AEMP_URL`` in the settings, ``"aemp://"`` by default, says
which nodes to join; see :class:`aemp_gevent.contrib.joining.MeshURL`.
"""

from aemp_gevent.contrib.django.invalidation import cache_invalidated, invalidate

__all__ = ["cache_invalidated", "invalidate"]
