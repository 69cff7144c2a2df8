# SPDX-License-Identifier: MIT
"""The table of a node's ports, by their IDs and aliases. Nothing else changes it."""

from __future__ import annotations

from collections.abc import Mapping

from aemp_gevent.errors import PortExistsError
from aemp_gevent.ports.port import REMOTE, Port


class PortTable:
    """Finds ports by their IDs.

    Ports of other nodes (:class:`~aemp_gevent.peers.remote_ports.RemotePort`) are in it as well, so that ``snd`` finds
    both kinds with one look-up.
    """

    __slots__ = ("_aliases", "_by_id", "by_id")

    def __init__(self) -> None:
        self._by_id: dict[str, Port] = {}
        self._aliases: dict[Port, list[str]] = {}
        self.by_id: Mapping[str, Port] = self._by_id
        """Every living port by its ID and by its aliases: for others to read."""

    def find(self, port_id: str) -> Port | None:
        """Return the living port of this node that has this ID or alias."""
        found = self._by_id.get(port_id)
        return None if found is None or found.state == REMOTE else found

    def add(self, port: Port) -> None:
        """Make a port reachable under its ID."""
        self._by_id[port.id] = port

    def remove(self, port: Port) -> None:
        """Forget a port with all its aliases. Idempotent."""
        by_id = self._by_id
        by_id.pop(port.id, None)
        if self._aliases:
            for alias in self._aliases.get(port, ()):
                by_id.pop(alias, None)
            self._aliases.pop(port, None)

    # --- aliases ---

    def names_of(self, port: Port) -> tuple[str, ...]:
        """Return a port's ID, then its aliases: its registered name, its ID before the node was initialised."""
        aliases = self._aliases.get(port)
        return (port.id,) if aliases is None else (port.id, *aliases)

    def register(self, port: Port, alias: str) -> None:
        """Register a name for a port, in place of the port's former name and of the name's former holder.

        Raises:
            PortExistsError: It is the ID of a port.
        """
        holder = self._by_id.get(alias)
        if holder is not None and holder.id == alias:
            raise PortExistsError(alias)
        if holder is not None:
            self._aliases[holder].remove(alias)
        known = self._aliases.get(port, [])
        own_name = port.id.partition("#")[2]  # an alias with this is the port's ID under a former node ID
        for old in [other for other in known if other.partition("#")[2] != own_name]:
            known.remove(old)
            del self._by_id[old]
        self._add_alias(port, alias)
        self._by_id[alias] = port

    def registered(self, alias: str) -> str | None:
        """Return the ID of the port that a name is registered for."""
        holder = self._by_id.get(alias)
        return None if holder is None or holder.id == alias else holder.id

    def rename(self, former: str, prefix: str) -> None:
        """Give all ports IDs that begin with another node ID; those they had become aliases.

        Args:
            former: How the IDs begin: a node ID and ``#``.
            prefix: How they will begin.
        """
        for port_id, port in list(self._by_id.items()):
            if not port_id.startswith(former):
                continue
            renamed = prefix + port_id.removeprefix(former)
            self._by_id[renamed] = port
            if port.id == port_id:
                port.id = renamed
                self._add_alias(port, port_id)
            else:
                self._add_alias(port, renamed)

    def _add_alias(self, port: Port, alias: str) -> None:
        self._aliases.setdefault(port, []).append(alias)
