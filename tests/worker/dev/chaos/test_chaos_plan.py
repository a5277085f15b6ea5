"""A plan is a value that follows from its seed."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from worker.dev.chaos.plan import HOLD_S, REPLIES_LOST_MAX, FaultKind, schedule
from worker.loop import Worker

seeds = st.integers(0, 2**32)
kinds = st.sets(st.sampled_from(FaultKind), min_size=1)
counts = st.integers(1, 300)


@given(seeds, kinds, counts)
def test_a_seed_makes_the_same_plan_again(seed, some, count):
    assert schedule(seed, some, count) == schedule(seed, sorted(some, reverse=True), count)


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
        shortest, longest = HOLD_S.get(fault.kind, (0.0, 0.0))
        assert shortest <= fault.hold_s <= longest
        assert 0 <= fault.victim < 1
        assert 1 <= fault.replies <= REPLIES_LOST_MAX


def test_two_seeds_make_two_plans():
    assert schedule(1, FaultKind, 60) != schedule(2, FaultKind, 60)


def test_no_kinds_no_faults():
    assert schedule(1, [], 10) == ()


def test_a_frozen_worker_wakes_up_after_its_lease():
    assert HOLD_S[FaultKind.FREEZE_WORKER][0] > Worker.lease_s
