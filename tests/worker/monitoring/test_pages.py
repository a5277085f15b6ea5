"""The pages of one process are made of its state, and of nothing else."""

from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

import orjson
import pytest

from db.workers import Backlog, Blocked, EndpointTrouble, OpenBatches, Seen
from tests.worker.monitoring.samples import sample_metrics
from worker.monitoring.backlog import BacklogMonitor, Snapshot
from worker.monitoring.http.pages import Pages
from worker.monitoring.loop_lag import INTERVAL_S, LoopLag
from worker.monitoring.state import ANSWER_FRESH_S, WorkerState

NOW = datetime(2026, 11, 24, tzinfo=UTC)


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def state(clock):
    state = WorkerState(clock=clock, started=True)
    state.postgres_answered()
    return state


@pytest.fixture
def pages(clock, state, sessions):
    return Pages(
        state=state,
        loop_lag=LoopLag(clock),
        backlog=BacklogMonitor(sessions, clock),
        metrics=sample_metrics(),
        identity={"pid": 1},
        blocked_after_s=10.0,
    )


def content(page):
    return page.status, orjson.loads(page.body)


def seen(*, mode="normal", state="running", silent=False):
    return Seen(
        uuid4(), "host", 1, "1.0", ["a"], state, mode, 0, "arq:queue", ["default"], NOW, NOW, silent
    )


async def test_a_process_that_runs_is_live_whatever_its_servers_do(pages, state):
    state.postgres_failed("connection")
    state.redis_trouble = "away"

    assert content(await pages.find("/livez")) == (200, {"live": True})


async def test_a_loop_that_stands_still_is_not_live_and_not_ready(pages, clock):
    clock.now += 10.5

    assert content(await pages.find("/livez")) == (
        503,
        {"live": False, "event_loop_blocked_s": 10.5},
    )
    status, answer = content(await pages.find("/readyz"))
    assert status == 503
    assert "event loop blocked" in answer["reasons"]


async def test_ready_means_started_not_draining_and_a_postgresql_that_answers(pages, state):
    assert content(await pages.find("/readyz")) == (
        200,
        {"ready": True, "mode": "normal", "reasons": [], "warnings": []},
    )

    state.started = False
    assert content(pages.readyz())[1]["reasons"] == ["starting"]
    state.started = True
    state.is_draining = lambda: True
    assert content(pages.readyz())[1]["reasons"] == ["draining"]
    state.is_draining = lambda: False
    state.postgres_failed("connection")
    assert content(pages.readyz()) == (
        503,
        {
            "ready": False,
            "mode": "normal",
            "reasons": ["postgresql connection"],
            "warnings": [],
        },
    )
    state.postgres_answered()
    assert pages.readyz().status == 200


async def test_without_redis_it_is_ready_and_says_that_it_is_degraded(pages, state):
    state.redis_trouble = "away"

    assert content(await pages.find("/readyz")) == (
        200,
        {"ready": True, "mode": "degraded", "reasons": [], "warnings": ["redis away"]},
    )


async def test_an_answer_of_postgresql_does_not_count_forever(pages, clock):
    clock.now += ANSWER_FRESH_S + 1
    patient = replace(pages, blocked_after_s=60.0)

    assert content(patient.readyz())[1]["reasons"] == ["postgresql silent"]


@pytest.mark.parametrize(
    ("fleet", "redis_trouble", "age_s", "verdict"),
    [
        ([seen()], None, 1, "healthy"),
        ([seen()], "evicts", 1, "healthy"),
        ([seen(mode="degraded")], None, 1, "degraded"),
        ([seen()], "full", 1, "degraded"),
        ([seen(silent=True), seen(state="stopped"), seen(state="draining")], None, 1, "no_workers"),
        ([seen()], None, 60, "unknown"),
    ],
    ids=["healthy", "healthy but", "one degraded", "no redis", "all gone", "stale"],
)
async def test_status_says_in_a_word_how_the_service_is(
    pages, state, clock, fleet, redis_trouble, age_s, verdict
):
    pages.backlog.last = Snapshot(Backlog(3, 2, 1, 4.5, 0.5), fleet, clock.now)
    clock.now += age_s
    state.redis_trouble = redis_trouble

    status, answer = content(await pages.find("/status"))

    assert status == 200
    assert answer["service"] == verdict
    assert answer["backlog"]["runnable"] == 3
    assert len(answer["fleet"]) == len(fleet)


async def test_status_answers_before_the_first_snapshot(pages):
    status, answer = content(await pages.find("/status"))

    assert (status, answer["service"], answer["backlog"]) == (200, "unknown", None)


async def test_there_are_no_other_pages(pages):
    assert await pages.find("/") is None
    assert await pages.find("/livez/") is None


async def test_the_worst_delay_of_the_loop_is_remembered_for_a_while(clock):
    loop_lag = LoopLag(clock)
    loop_lag.start()
    clock.now += INTERVAL_S + 2.0
    loop_lag.tick()
    clock.now += INTERVAL_S
    loop_lag.tick()
    assert loop_lag.worst_s() == pytest.approx(2.0)
    assert loop_lag.blocked_s() == 0.0
    clock.now += 60.0
    assert loop_lag.worst_s() == pytest.approx(60.0 - INTERVAL_S)
    loop_lag.stop()


async def test_a_disabled_endpoint_and_a_held_batch_are_warned_of(pages, clock):
    troubles = (EndpointTrouble("shop", "disabled", 60.0),)
    waiting = Backlog(0, 0, 0, 0.0, 0.0, batches=OpenBatches(5, 2, 90.0), endpoints=troubles)
    pages.backlog.last = Snapshot(waiting, [seen()], clock.now)

    _, answer = content(await pages.find("/readyz"))

    assert answer["warnings"] == [
        "the webhook endpoint shop is disabled",
        "2 batches are held by a dead member",
    ]


async def test_what_blocks_jobs_and_what_somebody_should_mend_is_shown(pages, state, clock):
    blocked = Blocked("send_letter", "environment:42501", 7, 60.0)
    pages.backlog.last = Snapshot(Backlog(0, 7, 0, 0.0, 0.0, (blocked,)), [seen()], clock.now)
    state.other_queues = ("letters",)
    state.quarantined_of["arq:queue"] = 2

    status, answer = content(await pages.find("/readyz"))

    assert (status, answer["reasons"]) == (200, [])
    assert answer["warnings"] == [
        "the same queues under other keys: letters",
        "2 members of the queue are in quarantine",
        "send_letter is blocked by environment:42501",
    ]
    assert content(await pages.find("/status"))[1]["backlog"]["blocked"] == [
        {"kind": "send_letter", "cause": "environment:42501", "jobs": 7, "since_s": 60.0}
    ]
