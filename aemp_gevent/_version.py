# SPDX-License-Identifier: MIT
"""The version of this release, and the only place it is written down.

It stands alone so that the packaging metadata can read it without importing
gevent. It is not the protocol's version: that belongs to the greeting.
"""

__version__ = "0.2.0"

PROVIDER = f"aemp_gevent-{__version__}"
"""How this library names itself in greetings."""
