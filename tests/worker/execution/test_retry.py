"""The retry table is pure, so its bounds are proved by properties."""

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from db.errors import Diagnosis, Trouble
from db.execution import Standing
from db.transaction import TransactionEndedError
from jobs import Retry
from worker.execution.commit import UnitTimeoutError
from worker.execution.retry import (
    BLOCKED_DELAY_MAX_S,
    BLOCKED_DELAY_MIN_S,
    BLOCKED_MAX,
    CONFLICT_DELAY_MAX_S,
    CONFLICTS_MAX,
    IN_PLACE,
    IN_PLACE_S,
    Cause,
    JobTimeoutError,
    backoff,
    cause_of,
    decide,
    diagnose,
    full_jitter,
    wait_in_place,
)

jitter = st.floats(0, 1, exclude_max=True)
troubles = st.sampled_from(Trouble)
causes = st.sampled_from(Cause)
tries = st.integers(1, 200)
policies = st.builds(Retry, attempts_max=st.integers(1, 6))

LONGEST_LIFE = 5_000
"""Runs in a life that must have ended long before."""


def live(policy, troubles_met, chance=0.5):
    """Return the actions of a job's life that meets these troubles, and its ledger at the end."""
    standing, actions = Standing(), []
    for cause in troubles_met:
        decision = decide(cause, "42501", standing, policy, jitter=chance)
        actions.append(decision.action)
        standing = decision.standing
        if decision.is_dead:
            break
        # The row's clock: it is blocked from when it first was, until something else clears it.
        waited_s = decision.delay.total_seconds()
        is_blocked = standing.blocked_by is not None
        standing = replace(standing, blocked_s=standing.blocked_s + waited_s if is_blocked else 0.0)
    return actions, standing


def endless(cause):
    return (cause for _ in range(LONGEST_LIFE))


@settings(deadline=None)
@given(st.lists(causes, min_size=1, max_size=5), policies, jitter)
def test_a_job_that_meets_the_same_troubles_again_and_again_ends_unless_the_server_is_away(
    pattern, policy, chance
):
    troubles_met = (pattern[number % len(pattern)] for number in range(LONGEST_LIFE))
    actions, standing = live(policy, troubles_met, chance)

    if set(pattern) == {Cause.OUTAGE}:
        assert set(actions) == {"put_back"}
        assert standing == Standing()
    elif "mark_dead" in actions:
        bound = (CONFLICTS_MAX + 2) * policy.attempts_max
        counted = Counter(actions)
        assert counted["spend_attempt"] + 1 <= policy.attempts_max
        if Cause.OUTAGE not in pattern:
            assert counted["put_back"] <= bound
    else:
        # Not over within so many runs: then it is blocked, and its row says by what.
        assert standing.blocked_by is not None


@given(jitter)
def test_a_job_that_is_locked_out_spends_attempts_only_after_its_bound(chance):
    actions, _ = live(Retry(attempts_max=3), endless(Cause.CONFLICT), chance)

    assert actions == ["put_back"] * CONFLICTS_MAX + ["spend_attempt"] * 2 + ["mark_dead"]


@given(jitter)
def test_a_blocked_job_waits_for_a_day_before_it_spends_an_attempt(chance):
    standing = Standing(blocked_by="environment:42501", blocked_s=BLOCKED_MAX.total_seconds())
    on_the_last_day = decide(Cause.ENVIRONMENT, "42501", standing, Retry(), jitter=chance)
    after = replace(standing, blocked_s=standing.blocked_s + 1)

    assert on_the_last_day.action == "blocked"
    assert decide(Cause.ENVIRONMENT, "42501", after, Retry(), jitter=chance).action == (
        "spend_attempt"
    )
    assert decide(Cause.NEWER_WORKER, None, after, Retry(), jitter=chance).is_dead


@given(jitter, st.sampled_from(["53100", "53200", "58030"]), st.floats(0, 80_000))
def test_a_full_disk_is_given_half_a_minute_at_least(chance, sqlstate, blocked_s):
    standing = Standing(blocked_by=f"environment:{sqlstate}", blocked_s=blocked_s)
    delay = decide(Cause.ENVIRONMENT, sqlstate, standing, Retry(), jitter=chance).delay

    assert 30 <= delay.total_seconds() <= 60


@given(causes, st.integers(0, 60), st.floats(0, 10**6), jitter)
def test_an_outage_changes_nothing_and_every_delay_is_bounded(cause, conflicts, blocked_s, chance):
    standing = Standing(
        attempts=1, conflicts=conflicts, blocked_by="newer_worker", blocked_s=blocked_s
    )
    decision = decide(cause, "42501", standing, Retry(), jitter=chance)

    if cause is Cause.OUTAGE:
        assert decision.standing == standing
    if decision.action == "blocked":
        assert BLOCKED_DELAY_MIN_S <= decision.delay.total_seconds() <= BLOCKED_DELAY_MAX_S
    elif cause is Cause.CONFLICT and decision.action == "put_back":
        assert timedelta() < decision.delay <= timedelta(seconds=CONFLICT_DELAY_MAX_S)


@given(st.integers(0, 49), st.integers(0, 3))
def test_a_failure_of_its_own_shows_that_nothing_holds_the_job_up(conflicts, attempts):
    held_up = Standing(attempts, conflicts, "environment:42501", 100.0)

    decision = decide(Cause.OWN, None, held_up, Retry(attempts_max=9), jitter=0.5)

    assert decision.standing == Standing(attempts + 1)


@given(troubles, st.integers(1, 200), st.floats(0, 100), jitter)
def test_tries_in_place_end_by_their_number_and_by_time(trouble, number, elapsed_s, chance):
    wait_s = wait_in_place(Diagnosis(trouble), tries=number, elapsed_s=elapsed_s, jitter=chance)
    most = max(rule.tries_max for rule in IN_PLACE.values())

    if number > most or elapsed_s > IN_PLACE_S:
        assert wait_s is None
    if trouble in IN_PLACE and number == 1 and elapsed_s <= IN_PLACE_S:
        assert wait_s is not None


@pytest.mark.parametrize("trouble", [Trouble.CONNECTION, Trouble.JOB_TIMEOUT])
def test_a_lost_connection_or_lost_time_is_the_servers_only_where_the_server_is_away(trouble):
    cause = partial(cause_of, Diagnosis(trouble))

    assert cause(server_is_away=True, handler_began=True) is Cause.OUTAGE
    assert cause(server_is_away=True, handler_began=False) is Cause.OUTAGE
    assert cause(server_is_away=False, handler_began=True) is Cause.OWN
    if trouble is Trouble.CONNECTION:
        # Counted, but not the job's: a pool without a free connection, a restart just survived.
        assert cause(server_is_away=False, handler_began=False) is Cause.CONFLICT


@given(troubles, st.booleans(), st.booleans())
def test_every_trouble_has_a_cause(trouble, server_is_away, handler_began):
    assert cause_of(
        Diagnosis(trouble), server_is_away=server_is_away, handler_began=handler_began
    ) in set(Cause)


@given(st.floats(0.001, 1), st.floats(1, 10), tries, jitter)
def test_jitter_stays_below_the_cap_and_the_doubled_base(base, cap, attempt, chance):
    wait = full_jitter(base, cap, attempt, chance)

    assert 0 <= wait < min(cap, base * 2.0 ** (attempt - 1)) + 1e-9


@given(tries, jitter)
def test_backoff_is_positive_and_capped(attempts, chance):
    policy = Retry(base=timedelta(seconds=2), cap=timedelta(minutes=10))

    assert timedelta(seconds=1) <= backoff(policy, attempts, chance) <= policy.cap


def test_a_deadline_that_is_not_the_drivers_is_not_a_lost_connection():
    assert diagnose(JobTimeoutError()) == Diagnosis(Trouble.JOB_TIMEOUT)
    assert diagnose(UnitTimeoutError()) == Diagnosis(Trouble.JOB_TIMEOUT)
    assert diagnose(TimeoutError()) == Diagnosis(Trouble.FAILURE)


def test_an_alarm_and_a_transaction_ended_behind_the_workers_back_are_dead_at_once():
    for error in (Diagnosis(Trouble.ALARM, "23514"), diagnose(TransactionEndedError())):
        cause = cause_of(error, server_is_away=False, handler_began=True)

        assert decide(cause, None, Standing(), Retry(), jitter=0.5).is_dead
