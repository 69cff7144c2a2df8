# SPDX-License-Identifier: MIT
"""The soak test of discovery in small: named nodes, public ones and slaves, as processes."""

from __future__ import annotations

import pytest

from soak.discovery import GROUP, Crowd


@pytest.mark.slow
def test_all_know_all_and_seeds_and_others_may_die() -> None:
    with Crowd(9, seed=1) as crowd:
        crowd.start()
        crowd.wait_until_all_know_all(60)
        assert len(set(crowd.members.values())) == 9
        assert max(crowd.links()) <= 2, "links to seeds are enough"
        crowd.restart_seeds()
        crowd.wait_until_all_know_all(60)
        crowd.kill_some(2)
        crowd.wait_until_all_know_all(60)
        assert len(crowd.seeds[0].run(f"mp.grp_get({GROUP!r})")) == 7


@pytest.mark.slow
def test_who_misses_somebody_is_noticed() -> None:
    with Crowd(2, seed=1) as crowd:
        crowd.start()
        crowd.wait_until_all_know_all(60)
        one, other = crowd.seeds
        crowd.members[one] = "somebody else"
        assert sorted(crowd.wrong(), key=id) == sorted([one, other], key=id)
