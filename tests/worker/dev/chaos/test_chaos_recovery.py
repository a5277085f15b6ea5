"""How long faults are felt, and how long the innocent wait: facts that follow from the record."""

import uuid
from dataclasses import replace
from datetime import UTC, datetime

from db.dev import JobOutcome
from worker.dev.chaos.faults import KINDS, Poisoned, Strike, Targets
from worker.dev.chaos.recovery import Spans, deaths_max, longest_wait_s, recoveries
from worker.execution.retry import CRASHES_MAX

SPANS = Spans([(0.0, 4.0), (1.0, 2.0), (5.0, 30.0)])


def targets_after(*strikes):
    made = Targets(*(None,) * 4, "chaos-")  # type: ignore[arg-type]  # no server is asked
    return replace(made, strikes=list(strikes))


def strike(kind, began_at, ended_at):
    return Strike(KINDS[kind], began_at, ended_at)


def test_a_fault_is_felt_until_every_job_that_it_met_has_ended():
    assert [SPANS.felt_s(at) for at in (0.5, 1.5, 4.5, 6.0, 40.0)] == [3.5, 2.5, 0.0, 24.0, 0.0]


def test_a_wait_is_counted_without_the_outages_in_it():
    targets = targets_after(
        strike("freeze-postgres", 6.0, 16.0),
        strike("restart-postgres", 15.0, 20.0),
        strike("kill-worker", 20.0, 25.0),  # no outage: others go on
    )

    assert longest_wait_s(targets, SPANS) == 25.0 - 14.0


def test_poison_is_felt_until_it_is_final_and_garbage_while_redis_has_it():
    job_id = uuid.uuid4()
    targets = targets_after(
        strike("poison:segfault", 0.0, 0.1),
        strike("garbage:ids", 1.0, 3.5),
        strike("flush-redis", 6.0, 6.0),
    )
    targets.poisoned[job_id] = Poisoned("segfault", sent_at=2.0)
    ended = JobOutcome(job_id, "dead", "WorkerDied", datetime.fromtimestamp(12.0, UTC))

    assert recoveries(targets, SPANS, [ended]) == {
        "poison:segfault": [10.0],
        "garbage:ids": [2.5],
        "flush-redis": [24.0],
    }


def test_a_deadly_job_may_end_three_processes_and_three_more_where_redis_forgot_meanwhile():
    ids = [uuid.uuid4(), uuid.uuid4(), uuid.uuid4()]
    targets = targets_after(strike("flush-redis", 6.0, 6.0), strike("kill-worker", 6.0, 6.0))
    deeds = ("segfault", "sigkill", "nul-in-error")
    for job_id, deed, sent_at in zip(ids, deeds, (2.0, 7.0, 2.0), strict=True):
        targets.poisoned[job_id] = Poisoned(deed, sent_at)
    ended_at = datetime.fromtimestamp(12.0, UTC)
    ended = [JobOutcome(job_id, "dead", "WorkerDied", ended_at) for job_id in ids]

    assert deaths_max(targets, ended) == 3 * CRASHES_MAX
