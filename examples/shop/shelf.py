# SPDX-License-Identifier: MIT
"""A shelf of the shop: a server, which backends offer to run."""

from __future__ import annotations

from aemp_gevent import NODE, grp_reg, spawnable
from aemp_gevent.otp import Server, call, cast

GROUP = "shop-backends"


def offer() -> None:
    """Offer this node to the shop's supervisor. The service of each backend."""
    grp_reg(GROUP)


@spawnable
class Shelf(Server):
    """Knows how many pieces of something are left. A real shop would keep that in a database, and read it here."""

    def init(self, what: str, pieces: int) -> None:
        self.what = what
        self.left = pieces

    @call
    def buy(self, pieces: int = 1) -> int:
        """Take some from the shelf, and return how many are left."""
        if pieces > self.left:
            raise ValueError(f"there are only {self.left} {self.what}")
        self.left -= pieces
        return self.left

    @call
    def look(self) -> tuple[str, int]:
        """Return the node that the shelf is on, and how many are left."""
        return NODE(), self.left

    @cast
    def crash(self) -> None:
        """Fail, like code with a fault."""
        raise RuntimeError(f"the shelf with the {self.what} fell over")
