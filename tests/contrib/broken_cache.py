# SPDX-License-Identifier: MIT
"""A cache for Django whose server is away."""

from __future__ import annotations

from typing import Any

from django.core.cache.backends.locmem import LocMemCache


class BrokenCache(LocMemCache):  # type: ignore[misc]  # Django has no types
    """Deletes nothing."""

    def delete_many(self, keys: Any, version: Any = None) -> None:
        raise OSError("the cache's server is away")
