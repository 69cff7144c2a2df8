# SPDX-License-Identifier: MIT
"""Vary the corpus of a target at random: ``python -m fuzz.by_chance TARGET FOLDER SECONDS SEED``."""

from __future__ import annotations

import hashlib
import random
import sys
import traceback
from pathlib import Path
from time import monotonic

from fuzz.mutate import mutate
from fuzz.targets import TARGETS, corpus, end


def main() -> int:
    """Return 1 as soon as something is found; what it was is in the folder then."""
    name, folder, seconds, seed = sys.argv[1:]
    target, known, dice = TARGETS[name], corpus(name), random.Random(int(seed))  # no secret
    until = monotonic() + float(seconds)
    tried = 0
    try:
        while monotonic() < until:
            data = mutate(dice.choice(known), known, dice)
            tried += 1
            try:
                target(data)
            except Exception:  # noqa: BLE001  # that is what is looked for
                traceback.print_exc()
                path = Path(folder) / f"crash-{hashlib.sha256(data).hexdigest()[:16]}"
                path.write_bytes(data)
                print(f"found after {tried}: {path}")
                return 1
    finally:
        end()
    print(f"{tried} tried")
    return 0


if __name__ == "__main__":
    sys.exit(main())
