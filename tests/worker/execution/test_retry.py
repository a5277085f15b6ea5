"""The retry table is pure, so its bounds are proved by properties."""

from datetime import timedelta

import pytest
from asyncpg.exceptions import (
    CheckViolationError,
    DeadlockDetectedError,
    InternalClientError,
    InvalidCachedStatementError,
    LockNotAvailableError,
    SerializationError,
)
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import DBAPIError

from jobs import Policy
from worker.execution.retry import (
    FREE_DELIVERIES_MAX,
    IN_PLACE,
    Bury,
    Diagnosis,
    JobTimeoutError,
    PutBack,
    RunAgain,
    SpendAttempt,
    Trouble,
    backoff,
    decide,
    diagnose,
    full_jitter,
)

luck = st.floats(0, 1, exclude_max=True)
troubles = st.sampled_from(Trouble)
tries = st.integers(1, 200)


def wrapped(error, *, invalidated=False):
    return DBAPIError("statement", None, error, connection_invalidated=invalidated)


@given(troubles, tries, tries, luck)
def test_every_trouble_has_a_decision(trouble, tries_in_place, try_number, chance):
    decision = decide(
        Diagnosis(trouble), tries_in_place=tries_in_place, try_number=try_number, luck=chance
    )

    assert isinstance(decision, RunAgain | PutBack | SpendAttempt | Bury)


@given(troubles, tries, luck)
def test_tries_in_place_end(trouble, try_number, chance):
    most = max(rule.tries_max for rule in IN_PLACE.values())
    decision = decide(
        Diagnosis(trouble), tries_in_place=most + 1, try_number=try_number, luck=chance
    )

    assert not isinstance(decision, RunAgain)


@given(st.sampled_from([Trouble.CONFLICT, Trouble.LOCK_TIMEOUT]), luck)
def test_a_lock_conflict_spends_no_attempt_until_it_has_gone_round_for_long(trouble, chance):
    early = decide(Diagnosis(trouble), tries_in_place=99, try_number=1, luck=chance)
    late = decide(
        Diagnosis(trouble), tries_in_place=99, try_number=FREE_DELIVERIES_MAX + 1, luck=chance
    )

    assert isinstance(early, PutBack)
    assert isinstance(late, SpendAttempt)


@given(tries, tries, luck)
def test_a_lost_connection_never_spends_an_attempt(tries_in_place, try_number, chance):
    decision = decide(
        Diagnosis(Trouble.CONNECTION),
        tries_in_place=tries_in_place,
        try_number=try_number,
        luck=chance,
    )

    assert isinstance(decision, RunAgain | PutBack)


@given(st.floats(0.001, 1), st.floats(1, 10), tries, luck)
def test_jitter_stays_below_the_cap_and_the_doubled_base(base, cap, attempt, chance):
    wait = full_jitter(base, cap, attempt, chance)

    assert 0 <= wait < min(cap, base * 2.0 ** (attempt - 1)) + 1e-9


@given(tries, luck)
def test_backoff_is_positive_and_capped(attempts, chance):
    policy = Policy(backoff_base=timedelta(seconds=2), backoff_cap=timedelta(minutes=10))

    assert timedelta(seconds=1) <= backoff(policy, attempts, chance) <= policy.backoff_cap


@pytest.mark.parametrize(
    ("error", "trouble", "sqlstate"),
    [
        (wrapped(DeadlockDetectedError("x")), Trouble.CONFLICT, "40P01"),
        (wrapped(SerializationError("x")), Trouble.CONFLICT, "40001"),
        (wrapped(LockNotAvailableError("x")), Trouble.LOCK_TIMEOUT, "55P03"),
        (wrapped(CheckViolationError("x")), Trouble.ALARM, "23514"),
        (wrapped(RuntimeError("closed"), invalidated=True), Trouble.CONNECTION, None),
        (DeadlockDetectedError("from the driver"), Trouble.CONFLICT, "40P01"),
        (InvalidCachedStatementError("from the driver"), Trouble.STALE_PLAN, "0A000"),
        (InternalClientError("in the middle of a goodbye"), Trouble.CONNECTION, None),
        (TimeoutError(), Trouble.CONNECTION, None),
        (JobTimeoutError(), Trouble.JOB_TIMEOUT, None),
        (FileNotFoundError("a handler's own file"), Trouble.FAILURE, None),
        (ValueError("a bug"), Trouble.FAILURE, None),
    ],
)
def test_an_exception_is_diagnosed_by_what_it_carries(error, trouble, sqlstate):
    assert diagnose(error) == Diagnosis(trouble, sqlstate)


def test_an_alarm_is_buried_at_once():
    decision = decide(Diagnosis(Trouble.ALARM, "23514"), tries_in_place=1, try_number=1, luck=0.5)

    assert decision == Bury()
