# SPDX-License-Identifier: MIT
"""What nodes answer about their figures, and the figures of several nodes together, each process once.

Which node keeps the totals of a process that has ended is decided in :mod:`aemp_gevent.contrib.heirs`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from aemp_gevent.contrib.answers import Sent, ask_all, short
from aemp_gevent.node.figures import (
    MAX_ROWS,
    EndedProcess,
    Rows,
    both_of,
    checked_pid,
    ended_from_afar,
    from_afar,
    is_process,
    of_processes,
    totals_in,
)
from aemp_gevent.node.metrics import MAX_ADDED
from aemp_gevent.node.node import Node


@dataclass(frozen=True)
class Answer:
    """What a node answered about its figures.

    Attributes:
        node: Its ID.
        process: The incarnation of the node; ``""`` for a private one.
        host: The name of its host.
        pid: Its process ID there.
        heir: The node that has its totals; ``""``: none, it reports them itself.
        kept: Processes whose totals it added to its own.
        rows: Its figures.
        ended: Processes whose totals it keeps apart.
    """

    node: str
    process: str
    host: str
    pid: int
    heir: str
    kept: frozenset[str]
    rows: Rows
    ended: tuple[EndedProcess, ...] = ()

    @classmethod
    def read(cls, sent: Sent) -> Answer:
        """Return what a node sent.

        Raises:
            ValueError: It is not such an answer.
        """
        part = sent.get("metrics")
        if not isinstance(part, dict):
            raise ValueError("it runs another version")  # noqa: TRY004  # a peer gave it
        texts = [sent.get("node"), part.get("process"), sent.get("host"), part.get("heir")]
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("it does not say who it is")
        kept = part.get("kept")
        if not isinstance(kept, (list, tuple)) or len(kept) > 2 * MAX_ADDED or not all(map(is_process, kept)):
            raise ValueError("it does not say whose totals it keeps")
        node, process, host, heir = map(str, texts)
        if process and not is_process(process):
            raise ValueError("it does not say which process it is")
        ended = tuple(ended_from_afar(part.get("ended")))
        rows = from_afar(part.get("rows"))
        return cls(node, process, short(host), checked_pid(sent.get("pid")), heir, frozenset(kept), rows, ended)

    def without_gauges(self) -> Answer:
        """Return only the totals, for a node that does not answer now."""
        return replace(self, rows=totals_in(self.rows))

    def as_lost(self) -> list[EndedProcess]:
        """Return what is known of the node's totals, and of those that it kept, when it ended without a word."""
        own = [EndedProcess(self.process, self.pid, True, totals_in(self.rows))] if self.process else []
        return [*own, *self.ended]


def asked(node: Node, others: Iterable[str], timeout: float) -> tuple[list[Answer], dict[str, str]]:
    """Ask nodes for their figures, all at the same time. Switches.

    Returns:
        The answers, and why there is none by the IDs of nodes that did not answer.
    """
    answers: list[Answer] = []
    found, silent = ask_all(node, others, {"metrics": MAX_ROWS}, timeout)
    for other, sent in found.items():
        try:
            answers.append(Answer.read(sent))
        except ValueError as error:
            silent[other] = str(error)
    return answers, silent


def processes_in(answers: Iterable[Answer]) -> set[str]:
    """Return the processes whose totals are somewhere in these answers."""
    found = {answer.process for answer in answers if not answer.heir}
    return found.union(*([*answer.kept, *(each.process for each in answer.ended)] for answer in answers))


def figures_of_all(answers: Sequence[Answer], remembered: Iterable[Answer] = ()) -> Rows:
    """Return the figures of several nodes of one host together, the totals of each process once.

    Args:
        answers: What they answered.
        remembered: What nodes answered earlier.
    """
    # A node that answers is believed about itself, even if another one claims to keep its totals.
    elsewhere = {answer.process for answer in answers if not answer.heir}
    elsewhere.update(*(answer.kept for answer in answers))
    elsewhere.discard("")
    earlier = [answer for answer in remembered if answer.process not in elsewhere]
    ended: dict[str, EndedProcess] = {}
    for answer in (*answers, *earlier):
        for each in answer.ended:
            if each.process not in elsewhere:
                known = ended.get(each.process)
                ended[each.process] = each if known is None else both_of(known, each)
    parts = [(answer.pid, answer.rows) for answer in answers]
    for answer in earlier:
        known = ended.get(answer.process)
        if known is None:
            parts.append((answer.pid, totals_in(answer.rows)))
        else:  # and perhaps it had counted more
            ended[answer.process] = both_of(known, replace(known, rows=totals_in(answer.rows)))
    return of_processes([*parts, *((each.pid, each.counted()) for each in ended.values())])
