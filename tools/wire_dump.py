# SPDX-License-Identifier: MIT
"""Print the packets between two nodes: ``aemp dump``, usable from a clone without installing it."""

from __future__ import annotations

import sys

from aemp_command.group import run_command


def main() -> None:
    """Run the program."""
    sys.exit(run_command(["dump", *sys.argv[1:]]))


if __name__ == "__main__":
    main()
