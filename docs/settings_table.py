# SPDX-License-Identifier: MIT
"""Write the table of settings into their reference page. A test checks that it is up to date.

All of it comes from the dataclass: names, types and defaults from its fields, the
texts from its docstring.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import fields
from pathlib import Path

from aemp_gevent.settings.fields import Settings
from aemp_gevent.settings.sources import variable_of

PAGE = Path(__file__).parent / "reference" / "settings.md"
BEGIN = "<!-- from here on written by docs/settings_table.py -->\n"
END = "<!-- to here -->\n"


def texts(kind: type[Settings]) -> dict[str, str]:
    """Return the entries of a dataclass's docstring, and those of its bases."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__[:-1]):
        _, _, attributes = (inspect.getdoc(base) or "").partition("Attributes:\n")
        for name, text in re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", attributes, re.MULTILINE):
            found[name] = re.sub(r"\s+", " ", text).replace("``", "`")
    return found


def table(kind: type[Settings]) -> str:
    """Return the settings as Markdown.

    Raises:
        LookupError: The docstring says nothing of one.
    """
    said = texts(kind)
    lines: list[str] = []
    for setting in fields(kind):
        if setting.name not in said:
            raise LookupError(f"the docstring of {kind.__name__} says nothing of {setting.name}")
        default = list(setting.default) if isinstance(setting.default, tuple) else setting.default
        if setting.name.endswith("_bytes") and isinstance(default, int):
            default = f"{default} ({f'{default // 2**20} MiB' if default >= 2**20 else f'{default // 2**10} KiB'})"
        lines.append(f"`{setting.name}`, `{variable_of(setting.name)}`\n: {said[setting.name]} *Default:* {default}.\n")
    return "\n".join(lines)


def updated(page: str) -> str:
    """Return the page with the table as it is to be."""
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n{table(Settings)}\n{END}{tail}"


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text()))
