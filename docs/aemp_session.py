# SPDX-License-Identifier: MIT
"""Record the page *A network from the command line*: type its commands, and write below them what a terminal shows.

Where the page has a picture below a command, the screen is drawn. ``python docs/aemp_session.py`` records all of it,
in an empty folder, with ``pip install`` and on a terminal; port 4040 has to be free. A test types everything behind
the installation once more, and compares what does not differ from run to run.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import tempfile
from itertools import groupby
from pathlib import Path

import pexpect
import pyte
from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parents[1]
FOLDER = Path(__file__).parent / "tutorial"
PAGE = FOLDER / "aemp.md"

COLUMNS, LINES = 104, 24
ADDRESS = "127.0.0.1:4040"

INSTALLING = ("mkdir ", "python3 -m venv", "pip install")
"""What only the recording does: a test has all of it already."""

_PROMPT = "\x1b]ready\x07$ "  # which nothing else prints
_PATIENCE = 60
_CONSOLE = re.compile(r"^```console\n(.*?)^```\n(?:\n!\[[^\]]*\]\(([\w-]+\.svg)\)\n)?", re.DOTALL | re.MULTILINE)
_MODULE = re.compile(r"^```python\n# (\w+\.py)\n(.*?)^```\n", re.DOTALL | re.MULTILINE)

_COLOURS = {"brown": "yellow"}  # pyte's names that are not rich's


class Shell:
    """A shell on a terminal.

    Args:
        folder: Where it is, and its user's home.
        path: What goes before the usual folders in ``PATH``.
        variables: More of its environment.
    """

    def __init__(self, folder: Path, *path: str, **variables: str) -> None:
        env = {
            "HOME": str(folder),
            "PATH": os.pathsep.join([*path, os.environ.get("PATH", os.defpath)]),
            "LANG": "C.UTF-8",
            "TERM": "xterm",
            "PS1": _PROMPT.replace("\x1b", r"\e").replace("\x07", r"\a"),
            "PS2": "",
            "VIRTUAL_ENV_DISABLE_PROMPT": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            **variables,
        }
        self._screen = pyte.Screen(COLUMNS, LINES)
        self._child = pexpect.spawn(
            "bash",
            ["--norc", "--noediting"],
            cwd=str(folder),
            env=env,
            dimensions=(LINES, COLUMNS),
            encoding="utf-8",
            timeout=_PATIENCE,
            echo=False,
        )
        self._child.expect_exact(_PROMPT)

    def type(self, command: str, patience: float = _PATIENCE) -> str:
        """Type a command; return what the terminal shows of it."""
        self._screen.reset()
        self._child.sendline(command)
        self._child.expect_exact(_PROMPT, timeout=patience)
        shown = self._child.before or ""
        pyte.Stream(self._screen).feed(shown)
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown).replace("\r", "")
        return re.sub(r" +$", "", text, flags=re.MULTILINE)

    def watch(self, command: str, until: str, keys: str) -> str:
        """Type a command that fills the screen, until a pattern is on it; then keys. Return a picture of it."""
        self._screen.reset()
        stream = pyte.Stream(self._screen)
        self._child.sendline(command)
        while not re.search(until, "\n".join(self._screen.display)):
            stream.feed(self._child.read_nonblocking(65536, timeout=_PATIENCE))
        with contextlib.suppress(pexpect.TIMEOUT):  # it may have been half a screen
            while True:
                stream.feed(self._child.read_nonblocking(65536, timeout=0.5))
        picture = self.picture(command)
        self._child.send(keys)
        self._child.expect_exact(_PROMPT)
        return picture

    def picture(self, title: str) -> str:
        """Return a picture of what is on the screen now."""
        lines = [self._line(number) for number in range(LINES)]
        while lines and not lines[-1].plain.strip():
            lines.pop()
        console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, highlight=False)
        for line in lines:
            console.print(line, no_wrap=True, soft_wrap=True)
        return console.export_svg(title=title, unique_id=re.sub(r"\W+", "-", title))

    def _line(self, number: int) -> Text:
        line = Text()
        row = [self._screen.buffer[number][column] for column in range(COLUMNS)]
        for (colour, is_bold), cells in groupby(row, lambda cell: (cell.fg, cell.bold)):
            style = "" if colour == "default" else _COLOURS.get(colour, colour)
            line.append("".join(cell.data for cell in cells), style=f"{'bold ' if is_bold else ''}{style}".strip())
        line.rstrip()
        return line

    def close(self) -> None:
        """End it, and all that runs in it."""
        self._child.close(force=True)


def record(shell: Shell, page: str, address: str = ADDRESS, *, installing: bool = True) -> tuple[str, dict[str, str]]:
    """Type a page's commands; return the page with what they show, and its pictures by file name.

    Args:
        shell: Where.
        page: The page.
        address: What stands for the page's address.
        installing: Whether to type what installs the library, too; else the page's text is kept there.
    """
    pictures: dict[str, str] = {}

    def typed(block: re.Match[str]) -> str:
        if module := _MODULE.match(block[0]):
            shell.type(f"cat > {module[1]} <<'end of {module[1]}'\n{module[2]}end of {module[1]}")
            return block[0]
        commands = re.findall(r"^\$ (.*)$", block[1], re.MULTILINE)
        if not installing and any(command.startswith(INSTALLING) for command in commands):
            return block[0]
        shown: list[str] = []
        for command in commands:
            own = command.replace(ADDRESS, address)
            shown.append(f"$ {command}\n")
            if command == "aemp top":
                # Rates are known from the second look on.
                pictures[block[2]] = shell.watch(own, r"[1-9]\d* messages/s", "q").replace(address, ADDRESS)
                continue
            said = shell.type(own, _PATIENCE * 5).replace(address, ADDRESS)
            shown.append(_last_line(said) if command.startswith("pip ") else said)
        if block[2] and block[2] not in pictures:
            pictures[block[2]] = shell.picture(commands[-1]).replace(address, ADDRESS)
        return block[0].replace(block[1], "".join(shown))

    return re.sub(f"{_CONSOLE.pattern}|{_MODULE.pattern}", typed, page, flags=_CONSOLE.flags), pictures


def _last_line(said: str) -> str:
    return "…\n" + said.strip().splitlines()[-1] + "\n"


def main() -> None:
    """Record everything."""
    page = PAGE.read_text()
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        (home / "aemp_gevent").symlink_to(ROOT)
        shell = Shell(home)
        try:
            recorded, pictures = record(shell, page)
        finally:
            shell.close()
    PAGE.write_text(recorded.replace(scratch, "/home/you"))
    for name, picture in pictures.items():
        (FOLDER / name).write_text(picture.replace(scratch, "/home/you"))


if __name__ == "__main__":
    main()
