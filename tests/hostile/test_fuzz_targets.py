# SPDX-License-Identifier: MIT
"""The fuzz targets, for a few seconds: what is in the corpus, and what hypothesis makes of it."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from aemp_gevent.errors import FramingError, UnencodableMessageError
from aemp_gevent.node import spawnable_functions
from aemp_gevent.settings.rules import EVERYTHING
from aemp_gevent.wire import auth, greeting
from aemp_gevent.wire.framing import FRAMINGS, Framing
from aemp_gevent.wire.framing_msgpack import MsgpackDecoder
from aemp_gevent.wire.limits import Limits
from fuzz import seeds, targets
from fuzz.mutate import mutate
from fuzz.node_requests import FORBIDDEN, Broken, forbidden, words
from fuzz.targets import CORPUS, TARGETS, Wrong, corpus, end
from tests.support.networking import ROOT
from tests.support.thoroughness import tries

pytestmark = pytest.mark.slow

EXAMPLES = {"greeting": 3000, "json": 1000, "msgpack": 1000, "cbor": 1000, "fragments": 1000, "requests": 600}
"""How many make some three seconds each, if tests are thorough; otherwise a fifth is tried."""


def examples(name: str) -> int:
    return tries(EXAMPLES[name] // 5, EXAMPLES[name])


@pytest.fixture(autouse=True)
def no_victim_is_left() -> Iterator[None]:
    yield
    end()


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_in_the_corpus_does_harm(name: str, record_property: Callable[[str, object], None]) -> None:
    known = corpus(name)
    for data in known:
        TARGETS[name](data)
    record_property("hostile", f"files {len(known)}, bytes {sum(map(len, known))}")


def varied(name: str) -> st.SearchStrategy[bytes]:
    """Return what is like something in the corpus, and what is like nothing."""
    known = corpus(name)

    def vary(data: bytes, seed: int) -> bytes:
        return mutate(data, known, random.Random(seed))

    return st.builds(vary, st.sampled_from(known), st.integers(0, 2**32)) | st.binary(max_size=300)


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_like_it_does_harm(name: str, record_property: Callable[[str, object], None]) -> None:
    tried = size = 0

    @settings(max_examples=examples(name), deadline=None, suppress_health_check=list(HealthCheck))
    @given(varied(name))
    def attack(data: bytes) -> None:
        nonlocal tried, size
        tried, size = tried + 1, size + len(data)
        TARGETS[name](data)

    attack()
    record_property("hostile", f"cases {tried}, bytes {size}")


SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=5)
WORDS = st.sampled_from(words())
VALUES = st.recursive(
    SCALARS | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS | st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
ASKED = st.builds(lambda request, args: [request, *args], WORDS | SCALARS, st.lists(WORDS | VALUES, max_size=5))


def test_no_request_however_it_is_put_together_does_harm(record_property: Callable[[str, object], None]) -> None:
    tried = 0

    @settings(max_examples=examples("requests"), deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.integers(0, 3), st.lists(ASKED, min_size=1, max_size=8))
    @example(3, [["snd", "127.0.0.1:1", "eval", f"{FORBIDDEN}()"]])
    def attack(bits: int, asked: list[list[Any]]) -> None:
        nonlocal tried
        encode = FRAMINGS["msgpack" if bits & 2 else "json"].encoder()
        stream = b""
        for request in asked:
            try:
                stream += encode(["", *request])
            except UnencodableMessageError:
                continue
            tried += 1
        TARGETS["requests"](bytes([bits]) + stream)

    attack()
    record_property("hostile", f"requests {tried}")


def test_corpus_is_what_its_program_writes() -> None:
    """Besides what was found: that is in there, too."""
    for name, files in seeds.seeds().items():
        for file, data in files.items():
            assert (CORPUS / name / file).read_bytes() == data, "run python -m fuzz.seeds"


@pytest.mark.parametrize("name", TARGETS)
def test_program_tries_a_target_for_a_while(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fuzz.by_chance", name, str(tmp_path), "0.3", "7"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split()[0]) > 0
    assert not list(tmp_path.iterdir())


# --- they would notice -----------------------------------------------------------------------


def anything(name: object, allowed: object) -> Any:
    return forbidden


BREAKS: dict[str, tuple[str, Callable[[pytest.MonkeyPatch], None]]] = {
    "any-function-may-be-spawned": (
        "requests",
        lambda patch: patch.setattr(spawnable_functions, "find_for_peer", anything),
    ),
    "who-is-fenced-may-kill": (
        "requests",
        lambda patch: patch.setattr("aemp_gevent.peers.peer.rights_of", lambda *_args: EVERYTHING),
    ),
    "any-request-is-relayed": (
        "requests",
        lambda patch: patch.setattr("aemp_gevent.node.request_host.RequestHost._check_relay", ignore),
    ),
    "errors-reach-the-hub": (
        "requests",
        lambda patch: patch.setattr("aemp_gevent.node.request_host.RequestHost.report", fail),
    ),
    "any-proof-will-do": ("greeting", lambda patch: patch.setattr(auth, "verify_any", lambda *_args: True)),
    "any-node-id-will-do": ("greeting", lambda patch: patch.setattr(greeting, "_check_node", ignore)),
    **{
        f"{name}-has-errors-of-its-own": (name, lambda patch, name=name: patch.setitem(FRAMINGS, name, leaky(name)))
        for name in ("json", "msgpack", "cbor")
    },
    "what-is-behind-a-packet-is-lost": ("fragments", lambda patch: patch.setattr(MsgpackDecoder, "is_at_end", True)),
    "what-is-cut-is-lost": ("json", lambda patch: patch.setattr(targets, "_decode", sloppy)),
}


def leaky(name: str) -> Framing:
    return replace(FRAMINGS[name], errors=(KeyError,))


def sloppy(name: str, data: bytes, step: int, limits: Limits, *, foreign: bool) -> tuple[list[Any], str]:
    """Decode as a decoder would that loses what is cut."""
    return DECODE(name, data[: len(data) // step * step], step, limits, foreign=foreign)


DECODE = targets._decode


def ignore(*_args: object) -> None:
    return


def fail(*_args: object) -> None:
    raise LookupError("nobody catches this")


@pytest.mark.parametrize("what", BREAKS)
def test_targets_notice_what_is_wrong(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    name, break_it = BREAKS[what]
    break_it(monkeypatch)
    known = corpus(name)
    dice = random.Random(1)

    def try_all() -> None:
        for data in known:
            TARGETS[name](data)
        for _ in range(3000):
            TARGETS[name](mutate(dice.choice(known), known, dice))

    with pytest.raises((Wrong, Broken, LookupError, ValueError, FramingError)):
        try_all()
