# SPDX-License-Identifier: MIT
"""One process of the demo: its server, or one of its clients. demo.py starts four of these.

    demo_node.py server FILE           (the secret comes from AEMP_SECRET)
    demo_node.py NAME SERVER_NODE_ID

What happens here is written to standard output, a JSON object a line: when, who, what, and the
facts that demo.py checks. Everything else goes by messages between the four nodes.
"""

import json
import logging
import os
import re
import sys
from collections import Counter
from itertools import cycle
from pathlib import Path
from time import monotonic
from typing import Any

import gevent
from gevent.socket import wait_read

from aemp_gevent import (
    NODE,
    SELF,
    actor,
    attach,
    initialise_node,
    mon,
    node_of,
    rcv,
    receive,
    reg,
    shutdown,
    shutdown_on_signal,
    snd,
    spawn,
    spawnable,
)

CLIENTS = 3

SAMPLES: dict[str, Any] = {  # Any: one message of every type there is
    "None": None,
    "bools": [True, False],
    "ints": [0, -1, 2**63, -(2**63), 2**64 - 1],
    "floats": [0.1, -1.5e300, float("inf")],
    "str": "plain text",
    "unicode": "Grüße, 世界 \N{SNOWMAN}\N{GRINNING FACE}",
    "bytes": b"\x00\xff raw \r\n",
    "lists": [1, [2.0, ["three", [None, []]]]],
    "maps": {"a": 1, "b": {"c": [True, {"d": b"e"}]}, 7: "seven"},
}

PARTS = 9
MAX_PART_CHARS = 2**20

who = sys.argv[1]


def tell(what: str, **facts: Any) -> None:
    """Write a line of the transcript; without ``what`` it says only that this process has got so far."""
    print(json.dumps({"when": monotonic(), "who": who, "what": what, "facts": facts}), flush=True)


def is_same(got: object, sent: object) -> bool:
    """Return whether a message is what was sent, the types included: 1, 1.0 and True are not the same."""
    return repr(got) == repr(sent)


def name_reason(reason: list[Any]) -> str:
    """Return a reason as text."""
    return f"({', '.join(map(repr, reason))})" if reason else "a normal death"


def tell_death(name: str, reason: list[Any]) -> None:
    """Report what a monitor was called with."""
    tell(f"monitor fired: {name} died, {name_reason(reason)}", **{f"death of {name}": reason})


# --- the server ------------------------------------------------------------------


def serve(text: Path) -> None:
    """Run the server, from the first guest to the last."""
    with attach() as hall:
        reg(hall, "hall")
        tell(f"is node {NODE()} and waits for guests in its port 'hall'", node=NODE())
        guests = welcome_guests(hall)
        hear_chat(guests)
        count_words_of(text, guests)
        watch_deaths(guests)


def welcome_guests(hall: str) -> dict[str, str]:
    """Wait for all clients, and make everybody monitor everybody. Returns their ports by name."""
    guests: dict[str, str] = {}
    while len(guests) < CLIENTS:
        _, name, guest = receive("join")
        guests[name] = guest
        mon(guest, hall, "died", name)
        tell(f"welcomes {name}, port {guest}, and monitors it")
    for guest in guests.values():
        snd(guest, "meet", guests)
    for _ in guests:
        receive("met")
    return guests


def hear_chat(guests: dict[str, str]) -> None:
    """Ask the guests for a line in turn, pass it on to the others, and collect what they received."""
    heard = 0
    wrong: list[str] = []
    for kind, (speaker, port) in zip(SAMPLES, cycle(guests.items()), strict=False):
        snd(port, "speak", kind)
        _, value = receive("say")
        if not is_same(value, SAMPLES[kind]):
            wrong.append(f"the server from {speaker}: {kind}")
        listeners = [other for name, other in guests.items() if name != speaker]
        for other in listeners:
            snd(other, "hear", speaker, kind, value)
        for _ in listeners:
            _, name, was_equal = receive("heard")
            heard += 1
            if not was_equal:
                wrong.append(f"{name} from {speaker}: {kind}")
    tell(f"knows that all has been heard: {len(SAMPLES)} messages, {heard} times", heard=heard, wrong=wrong)


def count_words_of(path: Path, guests: dict[str, str]) -> None:
    """Count a file's words on the guests' nodes: each guest that finishes a part gets the next one."""
    hall = SELF()
    totals: Counter[str] = Counter()
    counters = [spawn(node_of(guest), "demo_node.count_words", hall) for guest in guests.values()]
    tell(f"spawns a counter on each client's node, and hands out {path.name}")
    part_chars = min(path.stat().st_size // PARTS + 1, MAX_PART_CHARS)
    with path.open(encoding="utf-8", errors="replace") as text:
        idle = list(counters)
        while True:
            while idle and (lines := text.readlines(part_chars)):
                snd(idle.pop(), "count", lines)
            if len(idle) == len(counters):
                break
            _, counter, words = receive("counted")
            totals.update(words)
            idle.append(counter)
    for counter in counters:
        snd(counter, "done")
    tell(f"has the totals: {totals.total()} words, {len(totals)} different ones", totals=totals)


def watch_deaths(guests: dict[str, str]) -> None:
    """Wait for the guests to die one by one: killed from outside, by an exception, and in the end normally."""
    while guests:
        _, dead, *reason = receive("died")
        tell_death(dead, reason)
        del guests[dead]
        for name in guests:
            receive(["saw", name, dead])
        if len(guests) > 1:
            *_, victim = sorted(guests)
            tell(f"asks {victim} to divide 1 by 0")
            snd(guests[victim], "divide", 1, 0)
        else:
            for port in guests.values():
                snd(port, "goodbye")


# --- a client --------------------------------------------------------------------


@actor
def guest(hall: str) -> None:
    """Chat until it is time to go. What goes wrong here kills this port, and only this."""
    me = SELF()
    mon(hall)
    snd(hall, "join", who, me)
    while True:
        match receive():
            case "meet", guests:
                for name, port in guests.items():
                    if port != me:
                        mon(port, me, "died", name)
                snd(hall, "met")
            case "speak", kind:
                tell(f"says {SAMPLES[kind]!r}")
                snd(hall, "say", SAMPLES[kind])
            case "hear", speaker, kind, value:
                tell(f"hears {speaker} say {value!r}")
                snd(hall, "heard", who, is_same(value, SAMPLES[kind]))
            case "divide", a, b:
                snd(hall, "quotient", a / b)
            case "died", name, *reason:
                tell_death(name, reason)
                snd(hall, "saw", who, name)
            case ("goodbye",):
                tell("says goodbye")
                return
            case _:
                pass


@spawnable  # the server may run this here
def count_words(server: str) -> None:
    """Count the words of whatever lines come, until told that this was all."""
    counter = SELF()
    mon(server)

    def count(lines: list[str]) -> None:
        words = Counter(word for line in lines for word in re.findall(r"\w+", line.lower()))
        tell(f"counts {words.total()} words in {len(lines)} lines")
        snd(server, "counted", counter, words)

    rcv(counter, count=count, done=lambda: True)


def visit(server: str) -> None:
    """Run a client, which outlives its port long enough to report how that died."""
    tell(f"is node {NODE()} and goes to the server's hall", node=NODE())
    with attach() as me:
        port = guest(f"{server}#hall")
        mon(port, me, "over")
        _, *reason = receive("over")
        tell(f"my port died: {name_reason(reason)}; this process ends in order", over=reason)


# --- both ------------------------------------------------------------------------


class TellingHandler(logging.Handler):
    """Puts the library's warnings into the transcript, each on one line."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info and record.exc_info[1]
        tell(f"logs: {record.getMessage()}" + (f": {error!r}" if error else ""))


def tick() -> None:
    """Report progress now and then, so that demo.py can put all reports in order."""
    while True:
        gevent.sleep(0.05)
        tell("")


def end_with_parent() -> None:
    """End when demo.py does, however it ends: then its end of our standard input is closed."""
    wait_read(0)
    os._exit(1)


def main() -> None:
    """Run the role that the command line names."""
    logging.getLogger("aemp_gevent").addHandler(TellingHandler(logging.WARNING))
    gevent.spawn(tick)
    gevent.spawn(end_with_parent)
    shutdown_on_signal()
    initialise_node("127.0.0.1:0")
    if who == "server":
        serve(Path(sys.argv[2]))
    else:
        visit(sys.argv[2])
    shutdown()


if __name__ == "__main__":
    main()
