# SPDX-License-Identifier: MIT
"""The table of a handshake's states: every pair of a state and a move is listed or raises."""

from __future__ import annotations

import re
from typing import get_args

import pytest

from aemp_gevent.errors import GreetingError, LocalProtocolError
from aemp_gevent.wire.handshake import Handshake
from aemp_gevent.wire.handshake_states import TRANSITIONS, Move, State
from tests.wire.handshaking import (
    OURS,
    OURS_TLS,
    SECRET,
    THEIR_LINES,
    THEIR_TLS_GREETING,
    auth_line,
)


def in_state(state: State) -> Handshake:
    """A handshake brought into a state by what peers really do."""
    handshake = Handshake(OURS_TLS if state is State.SECURING else OURS, "nonce-a", SECRET)
    if state is State.FRESH:
        return handshake
    handshake.start()
    if state is State.SECURING:
        handshake.receive(THEIR_TLS_GREETING)
        return handshake
    if state is State.FAILED:
        with pytest.raises(GreetingError):
            handshake.receive(b"x\n")
        return handshake
    steps: dict[State, list[str]] = {
        State.GREETING: [],
        State.NONCE: ["line"],
        State.PROVING: ["line", "nonce"],
        State.PROVED: ["line", "nonce", "prove"],
        State.VERIFIED: ["line", "nonce", "auth"],
        State.OPEN: ["line", "nonce", "auth", "prove"],
    }
    sent = {"line": THEIR_LINES[0] + b"\n", "nonce": THEIR_LINES[1] + b"\n", "auth": auth_line()}
    for step in steps[state]:
        if step == "prove":
            handshake.prove()
        else:
            handshake.receive(sent[step])
    return handshake


@pytest.mark.parametrize("state", State, ids=lambda state: state.name)
@pytest.mark.parametrize("move", get_args(Move), ids=lambda move: move.__name__)
def test_every_move_is_listed_or_raises(state: State, move: type) -> None:
    handshake = in_state(state)
    assert handshake.state is state
    if move in TRANSITIONS[state]:
        handshake._move(move)
        assert handshake.state is TRANSITIONS[state][move]
    else:
        with pytest.raises(LocalProtocolError, match=re.escape(state.value)):
            handshake._move(move)
        assert handshake.state is state


@pytest.mark.parametrize("state", State, ids=lambda state: state.name)
def test_every_call_is_possible_in_its_states_only(state: State) -> None:
    possible = {
        "start": {State.FRESH},
        "prove": {State.PROVING, State.VERIFIED},
        "receive": set(State) - {State.FRESH, State.SECURING, State.OPEN, State.FAILED},
        "take_rest": {State.SECURING},
        "secured": {State.SECURING},
    }
    calls = {
        "start": Handshake.start,
        "prove": Handshake.prove,
        "receive": lambda handshake: handshake.receive(b""),
        "take_rest": Handshake.take_rest,
        "secured": lambda handshake: handshake.secured(None),
    }
    for name, call in calls.items():
        handshake = in_state(state)
        if state in possible[name]:
            call(handshake)
        else:
            with pytest.raises(LocalProtocolError):
                call(handshake)
            assert handshake.state is state


def test_every_state_can_be_reached_and_is_in_the_table() -> None:
    assert set(TRANSITIONS) == set(State)
    assert {after for moves in TRANSITIONS.values() for after in moves.values()} == set(State) - {State.FRESH}
