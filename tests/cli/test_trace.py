# SPDX-License-Identifier: MIT
"""What ``aemp trace`` draws of links that were met."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

from aemp_gevent.cli.node_queries import Seen
from aemp_gevent.cli.trace import draw_dot, draw_svg, edges_of


def link(node: str, **more: Any) -> dict[str, Any]:
    return {"node": node, "state": "up", "via": None, "provider": "aemp_gevent-1", **more}


def seen(node: str, parent: str | None, *links: dict[str, Any]) -> Seen:
    figures = {"roles": ["named"], "links": list(links)}
    return Seen(node, parent, figures=figures)


MET = {
    'a"&<': seen('a"&<', None, link("b", dialled=True, round_trip=0.002), link("c", dialled=False, round_trip=None)),
    "b": seen("b", 'a"&<', link('a"&<', dialled=False, round_trip=0.003), link("s", via='a"&<')),
    "c": Seen("c", 'a"&<', provider="AE-2.02", error="runs another program: AE-2.02"),
    "s": seen("s", "b", link("b", via='a"&<')),
}


def test_each_link_is_drawn_once_from_the_dialling_node() -> None:
    assert [(edge.one, edge.other, edge.via) for edge in edges_of(MET)] == [
        ('a"&<', "b", None),
        ("c", 'a"&<', None),
        ("b", "s", 'a"&<'),
    ]


def test_names_of_others_break_no_drawing() -> None:
    edges = edges_of(MET)
    dot = draw_dot(MET, edges)
    assert '"a\\"&<" -- "b" [label="2.00 ms"];' in dot
    assert '"c" [color=red];' in dot
    assert '[style="dotted"]' in dot
    root = ET.fromstring(draw_svg(MET, edges))
    texts = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert 'a"&<' in texts
    assert len(list(root.iter("{http://www.w3.org/2000/svg}path"))) == 3
    assert sum("stroke-dasharray" in path.attrib for path in root.iter()) == 1


def test_bytes_that_are_not_characters_are_escaped_in_drawings() -> None:
    met = {"\x1b[2J": Seen("\x1b[2J", None, figures={"roles": ["\x00"], "links": []})}
    assert '  "\\\\x1b[2J";' in draw_dot(met, []).splitlines()
    root = ET.fromstring(draw_svg(met, []))
    texts = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts == ["\\x1b[2J", "\\x00"]
