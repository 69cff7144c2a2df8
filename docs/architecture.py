# SPDX-License-Identifier: MIT
"""Draw the package's folders as floors, and write the list of them into the page on the architecture.

The contracts in ``pyproject.toml`` are the only statement of the order, and the first line of each folder's
docstring says what lives there; so does each module's. A test checks that picture and page are up to date.
"""

from __future__ import annotations

import ast
import re
import sys
import textwrap
from html import escape
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "aemp_gevent"
PAGE = ROOT / "docs" / "explanation" / "architecture.md"
PICTURE = ROOT / "docs" / "explanation" / "architecture.svg"

BEGIN = "<!-- from here on written by docs/architecture.py -->\n"
END = "<!-- to here -->\n"
MODULES = "<!-- the rest is written by docs/architecture.py -->\n"

_WIDTH, _HEIGHT, _GAP, _MARGIN = 760, 44, 10, 16
_FONT = 'font-family="sans-serif" font-size="13"'


def contracts() -> dict[str, dict[str, Any]]:
    """Return the import contracts by their IDs."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return {contract["id"]: contract for contract in settings["tool"]["importlinter"]["contracts"]}


def floors() -> list[list[str]]:
    """Return the names of what lives on each floor, from the edge down."""
    return [re.findall(r"\w+", layer) for layer in contracts()["floors"]["layers"]]


def sentence(path: Path) -> str:
    """Return the first line of a module's or a package's docstring, as Markdown."""
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    text = (ast.get_docstring(ast.parse(source.read_text())) or "").partition("\n\n")[0].replace("\n", " ")
    return re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text).replace("``", "`")


def rooms(path: Path) -> list[Path]:
    """Return the folders in a folder."""
    return sorted(child for child in path.glob("*") if (child / "__init__.py").exists())


def modules(path: Path) -> list[str]:
    """Return the names of a folder's modules."""
    return sorted(child.stem for child in path.glob("*.py") if not child.stem.startswith("__"))


def tree() -> str:
    """Return the package's folders from the edge down, each with its sentence and its modules."""
    names = [name for floor in floors() for name in floor]
    lines = ["```text", "aemp_gevent/"]
    for name in names:
        is_last = name == names[-1]
        lines += branch(PACKAGE / name, "", is_last=is_last)
    return "\n".join([*lines, "```", ""])


def branch(path: Path, before: str, *, is_last: bool) -> list[str]:
    """Return the lines of a folder, or of a module at the top."""
    fork, stem = ("└── ", "    ") if is_last else ("├── ", "│   ")
    name = f"{path.name}/" if path.is_dir() else f"{path.name}.py"
    label = f"{before}{fork}{name:{18 - len(before)}}"
    lines = wrapped(_plain(sentence(path)), label, f"{before}{stem}".ljust(len(label)))
    if path.is_dir():
        inner = rooms(path)
        twig = before + stem + ("│   " if inner else "    ")
        lines += wrapped("  ".join(modules(path)), twig, twig)
        for room in inner:
            lines += branch(room, before + stem, is_last=room == inner[-1])
    return lines


def wrapped(text: str, first: str, others: str) -> list[str]:
    """Return lines that fit on a page, with what the first and the others begin with."""
    return textwrap.wrap(text, 88, initial_indent=first, subsequent_indent=others)


def tables() -> str:
    """Return a table for each folder: its modules, and what each is for."""
    lines: list[str] = []
    for folder in [path for floor in floors() for name in floor for path in (PACKAGE / name, *rooms(PACKAGE / name))]:
        if folder.is_dir():
            lines += [f"### {folder.relative_to(PACKAGE)}/", "", "| module | |", "| --- | --- |"]
            lines += [f"| `{name}` | {sentence(folder / name)} |" for name in modules(folder)]
            lines.append("")
    return "\n".join(lines)


def rules() -> str:
    """Return the names of the contracts."""
    return "".join(f"- {contract['name']}.\n" for contract in contracts().values())


def written() -> str:
    """Return the part of the page that is written here."""
    picture = "![The floors, from the edge down](architecture.svg)"
    return f"{picture}\n\n{tree()}\n`make lint` checks these rules:\n\n{rules()}"


def updated() -> str:
    """Return the page as it is to be."""
    head, _, rest = PAGE.read_text().partition(BEGIN)
    tail, _, _ = rest.partition(END)[2].partition(MODULES)
    return f"{head}{BEGIN}\n{written()}\n{END}{tail}{MODULES}\n{tables()}"


def draw() -> str:
    """Return the picture: a row for each floor, a box for each folder, a smaller one for each folder in that."""
    height = 2 * _MARGIN + len(floors()) * (_HEIGHT + _GAP) - _GAP
    silent = {name.rpartition(".")[2] for name in contracts()["sans-io"]["source_modules"]}
    axis, middle = _MARGIN + 30, height // 2
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" {_FONT}>',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">',
        '<path d="M0,0 L8,4 L0,8 z" fill="#555"/></marker></defs>',
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
        f'<line x1="{axis}" y1="{_MARGIN}" x2="{axis}" y2="{height - _MARGIN}" stroke="#555" marker-end="url(#tip)"/>',
        f'<text transform="translate({axis - 12} {middle}) rotate(-90)" text-anchor="middle">imports</text>',
    ]
    left, right = _MARGIN + 56, _WIDTH - _MARGIN
    for row, floor in enumerate(floors()):
        width = (right - left - _GAP * (len(floor) - 1)) // len(floor)
        for column, name in enumerate(floor):
            x, y = left + column * (width + _GAP), _MARGIN + row * (_HEIGHT + _GAP)
            parts += _box(PACKAGE / name, x, y, width, is_silent=name in silent)
    return "\n".join([*parts, "</svg>", ""])


def _box(path: Path, x: int, y: int, width: int, *, is_silent: bool) -> list[str]:
    """Return a folder's box: its name, and its sentence if there is room beside it."""
    text = _plain(sentence(path))
    inner = [room.name for room in rooms(path)] if path.is_dir() else []
    fill = "#d8f0d8" if is_silent else "#eef2f7" if path.is_dir() else "#f7f4ea"
    parts = [
        f"<g><title>{escape(text)}</title>",
        f'<rect x="{x}" y="{y}" width="{width}" height="{_HEIGHT}" rx="6" fill="{fill}" stroke="#555"/>',
        f'<text x="{x + 12}" y="{y + 27}" font-weight="bold">{path.name}</text>',
    ]
    if width > _WIDTH // 2:
        parts.append(f'<text x="{x + 100}" y="{y + 27}" fill="#333" font-size="12">{escape(_short(text))}</text>')
    for number, name in enumerate(reversed(inner)):
        room_x = x + width - (number + 1) * 88
        parts += [
            f'<rect x="{room_x}" y="{y + 8}" width="80" height="{_HEIGHT - 16}" rx="4" fill="white" stroke="#999"/>',
            f'<text x="{room_x + 40}" y="{y + 27}" text-anchor="middle" font-size="12">{name}</text>',
        ]
    return [*parts, "</g>"]


def _plain(text: str) -> str:
    return text.replace("`", "")


def _short(text: str) -> str:
    """Return a sentence without what explains it behind a colon, if it is long."""
    return text if len(text) <= 86 else text.partition(":")[0] + "."  # more does not fit into a row


if __name__ == "__main__":
    PICTURE.write_text(draw())
    PAGE.write_text(updated())
