"""A plan is a value that follows from its seed."""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.cli.chaos import JOBS_PER_FAULT
from worker.dev.chaos.faults import KINDS, UnknownFaultError, find
from worker.dev.chaos.faults.servers import LONG_FREEZE_S
from worker.dev.chaos.plan import schedule
from worker.dev.poison import DEEDS
from worker.loop import Worker

seeds = st.integers(0, 2**32)
kinds = st.sets(st.sampled_from(list(KINDS.values())), min_size=1)
counts = st.integers(1, 300)


@given(seeds, kinds, counts)
def test_a_seed_makes_the_same_plan_again(seed, some, count):
    assert schedule(seed, some, count) == schedule(seed, list(some)[::-1], count)


@given(seeds, kinds, counts)
def test_every_kind_comes_at_least_once_if_there_is_room(seed, some, count):
    plan = schedule(seed, some, count)

    assert len(plan) == count
    assert {fault.kind for fault in plan} <= some
    assert len({fault.kind for fault in plan}) >= min(count, len(some))


@given(seeds, kinds, counts)
def test_faults_come_in_order_while_there_is_something_to_break(seed, some, count):
    plan = schedule(seed, some, count)

    assert all(one.at <= other.at for one, other in pairwise(plan))
    assert all(0 < fault.at < 1 for fault in plan)


@given(seeds, kinds, counts)
def test_everything_about_a_fault_is_within_its_bounds(seed, some, count):
    for fault in schedule(seed, some, count):
        shortest, longest = fault.kind.hold_s
        assert shortest <= fault.hold_s <= longest
        assert 0 <= fault.victim < 1
        assert 0 <= fault.force < 1


def test_the_first_freeze_of_a_long_run_outlasts_every_time_limit():
    plan = schedule(7, [KINDS["freeze-postgres"]], 5, is_long=True)

    assert plan[0].hold_s >= LONG_FREEZE_S[0]
    assert all(fault.hold_s <= fault.kind.hold_s[1] for fault in plan[1:])


def test_what_takes_long_comes_in_the_first_half():
    plan = schedule(1, KINDS.values(), 200)

    assert max(fault.at for fault in plan if fault.kind.is_slow) < 0.5
    assert max(fault.at for fault in plan) > 0.8


def test_two_seeds_make_two_plans():
    assert schedule(1, KINDS.values(), 60) != schedule(2, KINDS.values(), 60)


def test_no_kinds_no_faults():
    assert schedule(1, [], 10) == ()


def test_a_frozen_worker_wakes_up_after_its_lease():
    assert KINDS["freeze-worker"].hold_s[0] > Worker.lease_s


def test_the_run_of_every_commit_has_room_for_every_kind():
    assert len(KINDS) <= 10_000 // JOBS_PER_FAULT


def test_a_group_stands_for_all_of_its_kinds():
    assert {kind.name for kind in find(["poison"])} == {f"poison:{deed}" for deed in DEEDS}
    assert [kind.name for kind in find(["poison:segfault", "flush-redis"])] == [
        "flush-redis",
        "poison:segfault",
    ]


def test_a_kind_that_does_not_exist_is_refused_in_one_sentence():
    with pytest.raises(UnknownFaultError, match="'earthquake' is no kind of fault: those are kill"):
        find(["flush-redis", "earthquake"])


def test_the_page_on_reliability_names_every_kind_of_fault():
    page = (Path(__file__).parents[4] / "docs/reliability.md").read_text()
    sorts = Counter(kind.group for kind in KINDS.values())

    for group, count in sorts.items():
        assert (f"| `{group}` |" if count == 1 else f"| `{group}`, {count} sorts |") in page
