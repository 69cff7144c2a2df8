# SPDX-License-Identifier: MIT
"""What the embedded engine needs of its node's links."""

from __future__ import annotations

from collections import Counter
from typing import Protocol

from aemp_gevent.peers.peer import Peer
from aemp_gevent.ports.scheduler import Scheduler
from aemp_gevent.settings.fields import Settings


class EmbeddedHost(Protocol):
    """The links of the node whose engine this is."""

    @property
    def node_id(self) -> str: ...
    @property
    def scheduler(self) -> Scheduler: ...
    @property
    def settings(self) -> Settings: ...
    @property
    def refusals(self) -> Counter[str]: ...

    @property
    def master(self) -> str | None:
        """The node that this one is a slave of; None: it is not a slave."""
        ...

    @property
    def is_seed(self) -> bool:
        """Whether the node is one of its own seeds."""
        ...

    @property
    def has_seeds(self) -> bool:
        """Whether the node has any seeds."""
        ...

    @property
    def seeds_are_settled(self) -> bool:
        """Whether there is a link to every seed that can be linked to, as far as has been tried."""
        ...

    def addresses(self) -> list[str]:
        """Return where the node listens: endpoints that others can dial."""
        ...

    def up_peers(self) -> list[Peer]:
        """Return all peers whose links are up."""
        ...

    def up_seeds(self) -> list[Peer]:
        """Return the seeds whose links are up, the best first."""
        ...

    def link_to(self, node: str) -> None:
        """Establish a link to a node soon, unless there is one."""
