# SPDX-License-Identifier: MIT
"""Which commands there are, and where: the help lists them from here, without importing one.

A command is a ``click.Command``. Its ``help`` is the docstring of its function, the one
line below is what ``aemp --help`` says of it.
"""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    """A command.

    Attributes:
        where: Its module in ``aemp_gevent.cli``, and its name there.
        line: What it does, in one line.
    """

    where: str
    line: str


SET_UP = "Set up"
"""The section whose words may stand one after the other, and are done in one go."""

SECTIONS: dict[str, dict[str, Entry]] = {
    SET_UP: {},
    "Run": {
        "run": Entry("running:run", "Run a node with its services."),
    },
    "Talk": {},
    "Look": {},
}

COMMANDS: dict[str, Entry] = {name: entry for section in SECTIONS.values() for name, entry in section.items()}
