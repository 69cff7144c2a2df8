# SPDX-License-Identifier: MIT
"""Show what two nodes say to each other: ``aemp dump``, for whoever has the source and no installation."""

from __future__ import annotations

import sys

from aemp_command.group import run_command


def main() -> None:
    """Run the program."""
    sys.exit(run_command(["dump", *sys.argv[1:]]))


if __name__ == "__main__":
    main()
