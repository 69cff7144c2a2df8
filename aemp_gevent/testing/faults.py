# SPDX-License-Identifier: MIT
"""The faults of one direction of one connection, as data.

Places in the stream are counted in bytes from the connection's start. Random places are drawn in order and
independently of the pieces in which bytes arrive, so the same seed gives the same faults however the processes are
scheduled.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field


class Places:
    """Places in a stream, in order; each may come with a mask to change the byte there.

    Args:
        drawn: Their source, which may end.
    """

    def __init__(self, drawn: Iterable[tuple[int, int]] = ()) -> None:
        self._drawn = iter(drawn)
        self.next: float = math.inf
        """The next place; infinity when there is none."""
        self.mask = 0
        self.step()

    def step(self) -> None:
        """Advance to the place after this one."""
        self.next, self.mask = next(self._drawn, (math.inf, 0))


def boundaries(dice: random.Random, start: int, longest: int) -> Iterator[tuple[int, int]]:
    """Draw where pieces of 1 to ``longest`` bytes end."""
    place = start
    while True:
        place += dice.randint(1, longest)
        yield place, 0


def corruptions(dice: random.Random, start: int, probability: float) -> Iterator[tuple[int, int]]:
    """Draw which bytes are changed, each with this probability."""
    place = start
    while True:
        # How many are spared: the geometric distribution, one draw a place instead of one a byte.
        if probability < 1:
            place += int(math.log(1 - dice.random()) / math.log1p(-probability))
        yield place, dice.randint(1, 255)
        place += 1


def corruption(dice: random.Random, place: int) -> Iterator[tuple[int, int]]:
    """Draw how one byte is changed."""
    yield place, dice.randint(1, 255)


@dataclass
class Faults:
    """The faults of one direction; without arguments there are none.

    Attributes:
        delay: Seconds that each byte is late, at least.
        jitter: Seconds that it may be late in addition.
        bytes_per_second: How fast they may go.
        pieces: Where what is sent is cut into pieces.
        corrupted: Which bytes are changed.
        cut_at: Where the connection is closed.
        reset_at: Where it is reset.
        is_stalled: Nothing is passed on, and nothing gets lost.
        is_swallowing: Nothing is passed on, and everything gets lost.
    """

    delay: float = 0.0
    jitter: float = 0.0
    bytes_per_second: float = math.inf
    pieces: Places = field(default_factory=Places)
    corrupted: Places = field(default_factory=Places)
    cut_at: float = math.inf
    reset_at: float = math.inf
    is_stalled: bool = False
    is_swallowing: bool = False
