# SPDX-License-Identifier: MIT
"""Vary the corpus of a target with atheris: ``python -m fuzz.by_atheris TARGET FOLDER [CORPUS…] [-OPTION…]``.

The options are libFuzzer's.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

atheris: Any = importlib.import_module("atheris")  # without types, and not installed where these are checked

with atheris.instrument_imports(include=["aemp_gevent"]):
    from fuzz.node_requests import words
    from fuzz.targets import TARGETS


def main() -> None:
    """Run until time is up, or something is found; what it was is in the folder then."""
    name, folder, *rest = sys.argv[1:]
    vocabulary = Path(folder) / "words.dict"
    vocabulary.write_text("".join(f"{_quoted(word)}\n" for word in words() if word))
    options = [
        f"-artifact_prefix={folder}/",
        f"-dict={vocabulary}",
        "-max_len=4096",
        "-timeout=30",
        "-verbosity=0",
        "-print_final_stats=1",
    ]
    known = Path(folder) / "known"
    known.mkdir(exist_ok=True)
    atheris.Setup([sys.argv[0], str(known), *rest, *options], TARGETS[name])
    atheris.Fuzz()


def _quoted(word: str) -> str:
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


if __name__ == "__main__":
    main()
