"""The retry table is pure, so its bounds are proved by properties."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from db.errors import Diagnosis, Trouble
from jobs import Policy
from worker.execution.retry import (
    FREE_DELIVERIES_MAX,
    IN_PLACE,
    JobTimeoutError,
    MarkDead,
    PutBack,
    RunAgain,
    SpendAttempt,
    backoff,
    decide,
    diagnose,
    full_jitter,
)

jitter = st.floats(0, 1, exclude_max=True)
troubles = st.sampled_from(Trouble)
tries = st.integers(1, 200)


@given(troubles, tries, tries, jitter)
def test_every_trouble_has_a_decision(trouble, tries_in_place, try_number, chance):
    decision = decide(
        Diagnosis(trouble), tries_in_place=tries_in_place, try_number=try_number, jitter=chance
    )

    assert isinstance(decision, RunAgain | PutBack | SpendAttempt | MarkDead)


@given(troubles, tries, jitter)
def test_tries_in_place_end(trouble, try_number, chance):
    most = max(rule.tries_max for rule in IN_PLACE.values())
    decision = decide(
        Diagnosis(trouble), tries_in_place=most + 1, try_number=try_number, jitter=chance
    )

    assert not isinstance(decision, RunAgain)


@given(st.sampled_from([Trouble.CONFLICT, Trouble.LOCK_TIMEOUT]), jitter)
def test_a_lock_conflict_spends_no_attempt_until_it_has_gone_round_for_long(trouble, chance):
    early = decide(Diagnosis(trouble), tries_in_place=99, try_number=1, jitter=chance)
    late = decide(
        Diagnosis(trouble), tries_in_place=99, try_number=FREE_DELIVERIES_MAX + 1, jitter=chance
    )

    assert isinstance(early, PutBack)
    assert isinstance(late, SpendAttempt)


@given(tries, tries, jitter)
def test_a_lost_connection_never_spends_an_attempt(tries_in_place, try_number, chance):
    decision = decide(
        Diagnosis(Trouble.CONNECTION),
        tries_in_place=tries_in_place,
        try_number=try_number,
        jitter=chance,
    )

    assert isinstance(decision, RunAgain | PutBack)


@given(st.floats(0.001, 1), st.floats(1, 10), tries, jitter)
def test_jitter_stays_below_the_cap_and_the_doubled_base(base, cap, attempt, chance):
    wait = full_jitter(base, cap, attempt, chance)

    assert 0 <= wait < min(cap, base * 2.0 ** (attempt - 1)) + 1e-9


@given(tries, jitter)
def test_backoff_is_positive_and_capped(attempts, chance):
    policy = Policy(backoff_base=timedelta(seconds=2), backoff_cap=timedelta(minutes=10))

    assert timedelta(seconds=1) <= backoff(policy, attempts, chance) <= policy.backoff_cap


def test_a_jobs_own_deadline_is_not_a_lost_connection():
    assert diagnose(JobTimeoutError()) == Diagnosis(Trouble.JOB_TIMEOUT)
    assert diagnose(TimeoutError()) == Diagnosis(Trouble.CONNECTION)


def test_an_alarm_is_dead_at_once():
    decision = decide(Diagnosis(Trouble.ALARM, "23514"), tries_in_place=1, try_number=1, jitter=0.5)

    assert decision == MarkDead()
