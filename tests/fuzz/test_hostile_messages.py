"""The fuzz of `python -m tests.fuzz`, as short as the suite can bear."""

import logging

import pytest

from tests.fuzz.run import HEALTHY_EVERY, drawn, run
from worker.loop import aborts
from worker.maintenance import quarantine

MESSAGES = 1_000


def test_a_seed_draws_the_same_messages_again():
    assert repr(drawn(20, 7)) == repr(drawn(20, 7)) != repr(drawn(20, 8))


@pytest.mark.slow
async def test_no_hostile_message_holds_up_or_ends_anything(
    database_url, redis, redis_url, monkeypatch
):
    monkeypatch.setattr(logging.root.manager, "disable", logging.CRITICAL)
    monkeypatch.setattr(aborts, "ORPHAN_CHECK_INTERVAL_S", 0.5)
    monkeypatch.setattr(quarantine, "PAUSE_S", 0.2)

    result = await run(
        database_url, redis_url, messages=MESSAGES, seed=1, batch=MESSAGES // 5, healthy_s=100
    )

    assert not result.faults, "\n".join(result.faults)
    assert result.messages == MESSAGES
    assert len(result.healthy_s) == MESSAGES // HEALTHY_EVERY
    assert {"quarantined", "dead: malformed", "dead: does not fit"} <= result.totals.keys()
