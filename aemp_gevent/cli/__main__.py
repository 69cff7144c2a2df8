# SPDX-License-Identifier: MIT
"""``python -m aemp_gevent.cli`` is ``aemp``."""

from aemp_command import main

if __name__ == "__main__":
    main()
