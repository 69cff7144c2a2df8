# SPDX-License-Identifier: MIT
"""Sessions merge into people, whatever the order of changes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aemp_gevent.presence.people import Gathering, Movement, entry_key

PERSON = st.sampled_from(["alice", "bob", "a:b"])
CHANGES = st.lists(
    st.tuples(
        st.dictionaries(st.builds(entry_key, st.sampled_from("123"), PERSON), st.integers(0, 3), max_size=4),
        st.lists(st.builds(entry_key, st.sampled_from("123"), PERSON), max_size=4),
    ),
    max_size=8,
)


@given(changes=CHANGES)
def test_changes_lead_from_what_was_reported_to_what_there_is(changes: list[tuple[dict[str, int], list[str]]]) -> None:
    gathering = Gathering()
    sessions: dict[str, int] = {}
    seen: dict[str, list[int]] = {}
    for entries, deleted in changes:
        before = {person: list(metas) for person, metas in seen.items()}
        gone = [key for key in dict.fromkeys(deleted) if key not in entries]  # as the directory reports it
        for key in gone:
            sessions.pop(key, None)
        sessions.update(entries)
        change = gathering.apply(entries, gone)
        for person, metas in {**change.joined, **change.changed}.items():
            seen[person] = metas
        for person, metas in change.left.items():
            assert seen.pop(person) == metas, "the last that was known"
        assert not change.joined.keys() & before.keys()
        assert change.changed.keys() | change.left.keys() <= before.keys()
        people: dict[str, list[int]] = {}
        for key, meta in sessions.items():
            people.setdefault(key.partition(":")[2], []).append(meta)
        assert {person: sorted(metas) for person, metas in seen.items()} == {
            person: sorted(metas) for person, metas in people.items()
        }
        assert dict(gathering.people) == seen
        assert gathering._sessions.keys() == people.keys(), "nothing is kept of those who left"


def test_somebody_who_moves_in_one_change_has_not_left() -> None:
    gathering = Gathering()
    assert gathering.apply({"1:alice": "old"}, ()) == Movement({"alice": ["old"]}, {}, {})
    assert gathering.apply({"2:alice": "new"}, ["1:alice"]) == Movement({}, {"alice": ["new"]}, {})


def test_entries_of_others_are_ignored() -> None:
    gathering = Gathering()
    assert gathering.apply({"nobody": 1}, ["nobody", "1:bob"]).is_empty
    assert dict(gathering.people) == {}
