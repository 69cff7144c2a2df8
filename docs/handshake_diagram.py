# SPDX-License-Identifier: MIT
"""Draw the handshake's states, from its table, as an SVG. A test checks that it is up to date.

A state's column is how many moves it is away from the beginning; what happens when the peer breaks the
rules goes down to the failure, from all states that listen.
"""

from __future__ import annotations

from collections import deque
from html import escape
from pathlib import Path

from aemp_gevent.wire.handshake_states import TRANSITIONS, Refused, State

PICTURE = Path(__file__).parent / "reference" / "handshake.svg"

_WIDTH, _HEIGHT = 120, 36  # of a state's box
_ACROSS, _DOWN = 220, 90  # from one to the next
_MARGIN = 20


def columns() -> dict[State, int]:
    """Return how many moves each state is away from the first one, the failure left out."""
    found = {State.FRESH: 0}
    queue = deque(found)
    while queue:
        state = queue.popleft()
        for move, following in TRANSITIONS[state].items():
            if move is not Refused and following not in found:
                found[following] = found[state] + 1
                queue.append(following)
    return found


def places() -> dict[State, tuple[int, int]]:
    """Return where the boxes are, by their left upper corners."""
    found: dict[State, tuple[int, int]] = {}
    rows: dict[int, int] = {}
    for state, column in columns().items():
        row = rows[column] = rows.get(column, -1) + 1
        found[state] = (_MARGIN + column * _ACROSS, _MARGIN + row * _DOWN)
    found[State.FAILED] = (_MARGIN + _ACROSS, _MARGIN + (max(rows.values()) + 1) * _DOWN)
    return found


def draw() -> str:
    """Return the picture."""
    boxes = places()
    width = max(x for x, _ in boxes.values()) + _WIDTH + _MARGIN
    height = max(y for _, y in boxes.values()) + _HEIGHT + _MARGIN
    font = 'font-family="sans-serif" font-size="12"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" {font}>',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">',
        '<path d="M0,0 L8,4 L0,8 z" fill="#555"/></marker></defs>',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for state, moves in TRANSITIONS.items():
        for move, following in moves.items():
            parts += _arrow(boxes[state], boxes[following], "" if move is Refused else move.__name__)
    for state, (x, y) in boxes.items():
        fill = {State.OPEN: "#d8f0d8", State.FAILED: "#f4d8d8"}.get(state, "#eef2f7")
        parts += [
            f"<g><title>{escape(state.value)}</title>",
            f'<rect x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="8" fill="{fill}" stroke="#555"/>',
            f'<text x="{x + _WIDTH // 2}" y="{y + _HEIGHT // 2 + 4}" text-anchor="middle">{state.name}</text></g>',
        ]
    return "\n".join([*parts, "</svg>", ""])


def _arrow(start: tuple[int, int], end: tuple[int, int], text: str) -> list[str]:
    """Return an arrow between two boxes; one without a text is a refusal."""
    if not text:
        x, y = start[0] + _WIDTH // 2, start[1] + _HEIGHT
        is_beside = x > end[0] + _WIDTH
        to_x, to_y = (end[0] + _WIDTH, end[1] + 10) if is_beside else (end[0] + _WIDTH // 2, end[1])
        look = 'stroke="#b55" stroke-dasharray="4 3" marker-end="url(#tip)"'
        return [f'<line x1="{x}" y1="{y}" x2="{to_x}" y2="{to_y}" {look}/>']
    x, y = start[0] + _WIDTH, start[1] + _HEIGHT // 2
    to_x, to_y = end[0], end[1] + _HEIGHT // 2
    if to_x <= start[0]:  # in the same column
        x, y, to_x, to_y = start[0] + _WIDTH // 2, start[1] + _HEIGHT, end[0] + _WIDTH // 2, end[1]
    middle, level = (x + to_x) // 2, (y + to_y) // 2 - 5
    return [
        f'<line x1="{x}" y1="{y}" x2="{to_x}" y2="{to_y}" stroke="#555" marker-end="url(#tip)"/>',
        f'<text x="{middle}" y="{level}" text-anchor="middle" fill="#333">{escape(text)}</text>',
    ]


if __name__ == "__main__":
    PICTURE.write_text(draw())
