"""`worker jobs`: lists, shows, retries, dry-runs and cancels, by its own command line."""

import asyncio
import io
import json
import re
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest
import redis as redis_library
from rich.console import Console
from sqlalchemy import text
from typer.testing import CliRunner

from db.engine import create_engine, create_sessions
from db.execution import ERRORS_KEPT_MAX, Failure, JobRef, Record, Standing
from db.operations import REPLAYED, Line, find_job, replay_these
from jobs._wire import job_id_of
from tests.letters import letters_at
from worker.cli._options import UsageError
from worker.cli._times import short_time
from worker.cli.jobs import command
from worker.cli.jobs.tables import list_as_tsv, show_list
from worker.desk.acts import retry as replaying

NOW = datetime.now(UTC)


class JobsCommand:
    """The command line, and the database that it works on."""

    def __init__(self, url):
        self.url = url

    def do(self, unit):
        async def run():
            engine = create_engine(self.url, pool_size=2, application_name="teller-tests")
            try:
                return await unit(create_sessions(engine))
            finally:
                await engine.dispose()

        return asyncio.run(run())

    def run(self, *arguments, **options):
        return CliRunner().invoke(command.app, list(map(str, arguments)), **options)

    def add(
        self,
        *,
        kind="send_letter",
        payload=None,
        state="queued",
        error=None,
        redis_id=None,
        standing=Standing(attempts=1),  # noqa: B008 - it is frozen
    ):
        """Store one job, a dead one by way of an error."""
        made = job_id_of(redis_id) if redis_id else uuid.uuid4()
        delivered = JobRef(
            id=made,
            kind=kind,
            payload_json=json.dumps({"some": "thing"} if payload is None else payload),
            enqueued_at=datetime.now(UTC),
            redis_id=redis_id,
        )

        async def put(sessions):
            async with sessions() as session, session.begin():
                record = Record(session)
                if state in {"queued", "dead"}:
                    failure = (error or Failure("ValueError", "no wheel")).as_json(1, NOW)
                    await record.note(delivered, standing, state=state, error=failure)
                else:
                    await record.finish(delivered, state, None)

        self.do(put)
        return made

    def find(self, job_id):
        async def find(sessions):
            async with sessions() as session:
                return await find_job(session, job_id)

        return self.do(find)


@pytest.fixture
def jobs_command(letters, new_database_url, servers, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", new_database_url)
    monkeypatch.setenv("REDIS_URL", servers[1])
    monkeypatch.setenv("COLUMNS", "200")
    return JobsCommand(new_database_url)


@pytest.fixture
def queue(servers):
    client = redis_library.Redis.from_url(servers[1])
    client.flushdb()
    yield client
    client.close()


def listed(result):
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_a_list_is_filtered_by_state_kind_time_and_error(jobs_command):
    dead = jobs_command.add(state="dead", error=Failure("DeadlockDetectedError", "x", "40P01"))
    queued = jobs_command.add(kind="send_card")
    jobs_command.add(state="completed")

    def ids(*arguments):
        return {line["id"] for line in listed(jobs_command.run("list", "--json", *arguments))}

    assert len(ids()) == 3
    assert ids("--state", "dead") == {str(dead)}
    assert ids("--kind", "send_card") == {str(queued)}
    assert ids("--error", "40P01") == ids("--error", "DeadlockDetectedError") == {str(dead)}
    assert ids("--since", "1h") == ids()
    assert ids("--since", "2999-01-01T00:00") == set()


def test_pages_follow_each_other_without_gap_or_repetition(jobs_command):
    made = [str(jobs_command.add()) for _ in range(7)]
    seen, after = [], []
    while True:
        page = jobs_command.run("list", "--json", "--limit", "3", *after)
        lines = listed(page)
        seen += [line["id"] for line in lines]
        if "--after" not in page.stderr:
            break
        after = ["--after", page.stderr.split("--after ")[1].strip()]

    assert seen == made[::-1]


SEEN_AT = datetime(2026, 11, 25, 18, 0, tzinfo=timezone(timedelta(hours=1)))
A_LINE = Line(
    UUID("018f0000-0000-7000-8000-000000000001"),
    "send_letter",
    "completed",
    0,
    datetime(2026, 11, 25, 16, 5, 7, tzinfo=UTC),
    datetime(2026, 11, 25, 16, 5, 7, tzinfo=UTC),
    datetime(2026, 11, 25, 16, 5, 7, 48_000, tzinfo=UTC),
    None,
    None,
)
DEAD = replace(A_LINE, state="dead", error="DeadlockDetectedError", sqlstate="40P01")


def drawn(lines, width):
    printed = io.StringIO()
    show_list(lines, Console(width=width, file=printed), SEEN_AT)
    return printed.getvalue().splitlines()


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_a_list_has_a_line_a_job_and_every_id_whole_at_any_width(width):
    shown = drawn([A_LINE, DEAD], width)

    assert len(shown) == 3
    assert all(len(line) <= width and str(A_LINE.id) in line for line in shown[1:])


def test_a_wide_list_has_local_times_and_how_long_it_took():
    assert drawn([A_LINE], 120)[1].split() == [
        *(str(A_LINE.id), "send_letter", "completed"),
        *("17:05:07", "48", "ms"),
    ]


def test_a_list_has_a_column_of_errors_only_where_there_is_one():
    assert "error" not in drawn([A_LINE], 120)[0]
    assert drawn([DEAD], 120)[1].endswith("DeadlockDetectedError 40P01")


@pytest.mark.parametrize(
    ("at", "shown"),
    [
        (datetime(2026, 11, 25, 9, 30, tzinfo=UTC), "10:30:00"),
        (datetime(2026, 11, 24, 23, 30, tzinfo=UTC), "00:30:00"),
        (datetime(2026, 11, 24, 9, 30, tzinfo=UTC), "24 Nov 10:30"),
        (datetime(2025, 12, 31, 9, 30, tzinfo=UTC), "2025-12-31"),
    ],
)
def test_a_time_is_as_short_as_the_day_allows(at, shown):
    assert short_time(at, SEEN_AT) == shown


def test_into_a_pipe_goes_a_line_of_names_and_values_with_tabs_between():
    names, values = (line.split("\t") for line in list_as_tsv([DEAD]).splitlines())

    assert dict(zip(names, values, strict=True)) == {
        "id": str(DEAD.id),
        "kind": "send_letter",
        "state": "dead",
        "attempts": "0",
        "accepted": "2026-11-25T16:05:07+00:00",
        "ended": "2026-11-25T16:05:07.048000+00:00",
        "error": "DeadlockDetectedError",
        "sqlstate": "40P01",
    }


def test_an_empty_list_says_why(jobs_command):
    assert "no jobs yet" in jobs_command.run("list").stderr
    assert "no job matches kind=send_card" in jobs_command.run("list", "--kind", "send_card").stderr


def test_a_job_is_shown_with_its_errors_and_without_its_payload(jobs_command):
    dead = jobs_command.add(
        state="dead",
        payload={"email": "jane@example.com"},
        error=Failure("CheckViolationError", "a rule", "23514"),
    )

    shown = jobs_command.run("show", dead).stdout
    in_full = jobs_command.run("show", dead, "--payload").stdout
    as_json = json.loads(jobs_command.run("show", dead, "--json").stdout)

    assert "23514" in shown
    assert "jane@example.com" not in shown + str(as_json)
    assert "jane@example.com" in in_full
    assert as_json["errors"][0]["sqlstate"] == "23514"


def test_a_job_that_waits_is_shown_with_what_it_waits_for(jobs_command):
    blocked = jobs_command.add(standing=Standing(conflicts=7, blocked_by="environment:42501"))
    usual = jobs_command.add()

    shown = jobs_command.run("show", blocked).stdout
    assert re.search(r"waits for +environment:42501, since 20\d\d-", shown), shown
    assert re.search(r"conflicts +7\b", shown), shown
    assert "environment" not in jobs_command.run("show", usual).stdout


def test_a_job_is_found_by_the_id_that_an_arq_client_chose(jobs_command):
    jobs_command.add(state="dead", redis_id="order-42")

    assert "order-42" in jobs_command.run("show", "order-42").stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("show", uuid.uuid4()),
        ("retry",),
        ("retry", uuid.uuid4(), "--all"),
        ("cancel",),
        ("list", "--since", "yesterday"),
        ("list", "--after", "x"),
    ],
)
def test_what_cannot_be_done_is_said(jobs_command, arguments):
    result = jobs_command.run(*arguments)

    assert isinstance(result.exception, UsageError)


def test_a_dead_job_runs_again_with_its_errors_kept_and_its_attempts_renewed(jobs_command, queue):
    dead = jobs_command.add(state="dead")
    queue.set(f"arq:result:{dead}", "the first end")

    result = jobs_command.run("retry", dead)
    job = jobs_command.find(dead)

    assert result.exit_code == 0, result.output
    assert (job.state, job.attempts, job.finished_at) == ("queued", 0, None)
    assert [error["error"] for error in job.errors] == ["ValueError", REPLAYED]
    assert "@" in job.errors[1]["message"]
    assert queue.zscore("arq:queue", str(dead)) is not None
    assert queue.get(f"arq:result:{dead}") is None
    assert REPLAYED in jobs_command.run("show", dead).stdout
    assert listed(jobs_command.run("list", "--json"))[0]["error"] == "ValueError"


def test_which_jobs_are_dead_already_is_told_by_the_databases_clock(jobs_command, monkeypatch):
    """An operator's clock that is behind would leave out all that died since."""

    class Behind(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) - timedelta(hours=1)

    monkeypatch.setattr(replaying, "datetime", Behind, raising=False)
    dead = jobs_command.add(state="dead")

    assert jobs_command.run("retry", "--all", "--yes").exit_code == 0
    assert jobs_command.find(dead).state == "queued"


def test_only_dead_jobs_run_again(jobs_command):
    done, dead = jobs_command.add(state="completed"), jobs_command.add(state="dead")

    result = jobs_command.run("retry", done, dead)

    assert result.exit_code == command.NOT_DONE
    assert "only dead jobs" in result.stderr
    assert jobs_command.find(done).state == "completed"
    assert jobs_command.find(dead).state == "queued"


def test_many_dead_jobs_run_again_by_a_filter_and_only_after_a_yes(jobs_command):
    dead = [jobs_command.add(state="dead") for _ in range(3)]
    other = jobs_command.add(state="dead", kind="send_card")
    arguments = ("retry", "--kind", "send_letter")

    refused = jobs_command.run(*arguments, input="n\n")
    assert refused.exit_code == 1
    assert "retry 3 dead jobs" in refused.output
    assert jobs_command.find(dead[0]).state == "dead"

    assert "3 jobs put back" in jobs_command.run(*arguments, "--yes").stdout
    assert [jobs_command.find(one).state for one in dead] == ["queued"] * 3
    assert jobs_command.find(other).state == "dead"


def test_a_job_that_dies_again_meanwhile_is_not_replayed_forever(jobs_command, monkeypatch):
    jobs_command.add(state="dead")
    from worker.desk.acts import retry

    async def die_again(self, jobs):
        async with self._sessions() as session, session.begin():
            await session.execute(
                text("UPDATE jobs SET state = 'dead', finished_at = clock_timestamp()")
            )

    monkeypatch.setattr(retry.Replayer, "_send", die_again)

    assert "1 jobs put back" in jobs_command.run("retry", "--all", "--yes").stdout


def test_without_redis_the_job_is_changed_and_the_relay_does_the_rest(jobs_command, monkeypatch):
    dead = jobs_command.add(state="dead")
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")

    assert jobs_command.run("retry", dead).exit_code == 0
    assert jobs_command.find(dead).state == "queued"


def test_the_errors_that_are_kept_stay_bounded(jobs_command):
    dead = jobs_command.add(state="dead")

    async def replay_often(sessions):
        for _ in range(ERRORS_KEPT_MAX + 5):
            async with sessions() as session, session.begin():
                await session.execute(
                    text("UPDATE jobs SET state = 'dead', finished_at = clock_timestamp()")
                )
                await replay_these(session, [dead], "again")

    jobs_command.do(replay_often)

    assert len(jobs_command.find(dead).errors) == ERRORS_KEPT_MAX


@pytest.mark.parametrize(
    ("address", "outcome"), [("12 High Street", "completed"), ("nowhere", "rejected")]
)
def test_a_dry_run_shows_the_outcome_and_changes_nothing(jobs_command, address, outcome):
    dead = jobs_command.add(state="dead", payload={"address": address})

    result = jobs_command.run("retry", dead, "--dry-run")

    assert result.exit_code == 0, result.output
    assert f"would be {outcome}" in result.stdout
    assert jobs_command.find(dead).state == "dead"
    assert jobs_command.do(lambda sessions: letters_at(sessions, address)) == []


def test_a_dry_run_of_what_would_fail_again_says_how(jobs_command):
    dead = jobs_command.add(state="dead")
    unknown = jobs_command.add(state="dead", kind="no_such_kind")

    result = jobs_command.run("retry", dead, unknown, "--dry-run")

    assert result.exit_code == command.NOT_DONE
    assert "InvalidPayload" in result.stdout
    assert "unknown kind" in result.stdout


def test_a_dry_run_by_filter_takes_all_of_them(jobs_command):
    dead = [jobs_command.add(state="dead", payload={"address": "here"}) for _ in range(2)]

    result = jobs_command.run("retry", "--kind", "send_letter", "--dry-run")

    assert {line.split()[0] for line in result.stdout.splitlines()} == set(map(str, dead))


def test_what_has_taken_effect_is_not_run_dry(jobs_command):
    done = jobs_command.add(state="completed")

    assert isinstance(jobs_command.run("retry", done, "--dry-run").exception, UsageError)


def test_a_queued_job_is_cancelled_with_a_reason_and_aborted_in_redis(jobs_command, queue):
    waiting = jobs_command.add(redis_id="order-43")

    result = jobs_command.run("cancel", "order-43", "--reason", "sold out")
    job = jobs_command.find(waiting)

    assert result.exit_code == 0, result.output
    assert (job.state, job.result) == ("cancelled", {"reason": "sold out"})
    assert queue.zscore("arq:abort", "order-43") is not None


def test_a_job_that_has_taken_effect_is_not_cancelled(jobs_command):
    done = jobs_command.add(state="completed")

    result = jobs_command.run("cancel", done)

    assert result.exit_code == command.NOT_DONE
    assert "too late" in result.stderr
    assert jobs_command.find(done).state == "completed"


def test_many_queued_jobs_are_cancelled_after_a_yes(jobs_command):
    waiting = [jobs_command.add() for _ in range(3)]
    dead = jobs_command.add(state="dead")

    assert jobs_command.run("cancel", "--all", input="n\n").exit_code == 1
    assert "3 jobs cancelled" in jobs_command.run("cancel", "--all", "--yes").stdout
    assert [jobs_command.find(one).state for one in waiting] == ["cancelled"] * 3
    assert jobs_command.find(dead).state == "dead"
