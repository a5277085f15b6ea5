"""`worker jobs`: lists, shows, retries, dry-runs and cancels, by its own command line."""

import asyncio
import json
import uuid
from datetime import UTC, datetime, timedelta

import pytest
import redis as redis_library
from sqlalchemy import text
from typer.testing import CliRunner

from db.engine import create_engine, create_sessions
from db.execution import ERRORS_KEPT_MAX, Failure, JobRef, Record
from db.intervention import replay_these
from db.operations import REPLAYED, find_job
from jobs._wire import job_id_of
from tests.bank.kit import balance_of, open_account
from worker.cli._options import UsageError
from worker.cli.jobs import command

NOW = datetime.now(UTC)


class Office:
    """A record to fill, and the command line to look at it with."""

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

    def command(self, *arguments, **options):
        return CliRunner().invoke(command.app, list(map(str, arguments)), **options)

    def job(
        self, *, kind="transfer_funds", payload=None, state="queued", error=None, redis_id=None
    ):
        """Put one job into the record, dead ones by way of an error."""
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
                    await record.note_failure(
                        delivered, failure, state=state, spent=1, delay=timedelta()
                    )
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
def office(new_database_url, servers, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", new_database_url)
    monkeypatch.setenv("REDIS_URL", servers[1])
    monkeypatch.setenv("COLUMNS", "200")
    return Office(new_database_url)


@pytest.fixture
def queue(servers):
    client = redis_library.Redis.from_url(servers[1])
    client.flushdb()
    yield client
    client.close()


def listed(result):
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_a_list_is_filtered_by_state_kind_time_and_error(office):
    dead = office.job(state="dead", error=Failure("DeadlockDetectedError", "x", "40P01"))
    queued = office.job(kind="create_user")
    office.job(state="completed")

    def ids(*arguments):
        return {line["id"] for line in listed(office.command("list", "--json", *arguments))}

    assert len(ids()) == 3
    assert ids("--state", "dead") == {str(dead)}
    assert ids("--kind", "create_user") == {str(queued)}
    assert ids("--error", "40P01") == ids("--error", "DeadlockDetectedError") == {str(dead)}
    assert ids("--since", "1h") == ids()
    assert ids("--since", "2999-01-01T00:00") == set()


def test_pages_follow_each_other_without_gap_or_repetition(office):
    made = [str(office.job()) for _ in range(7)]
    seen, after = [], []
    while True:
        page = office.command("list", "--json", "--limit", "3", *after)
        lines = listed(page)
        seen += [line["id"] for line in lines]
        if "--after" not in page.stderr:
            break
        after = ["--after", page.stderr.split("--after ")[1].strip()]

    assert seen == made[::-1]


def test_a_list_for_people_has_the_last_error(office):
    dead = office.job(state="dead", error=Failure("DeadlockDetectedError", "x", "40P01"))

    shown = office.command("list").stdout

    assert str(dead) in shown
    assert "DeadlockDetectedError 40P01" in shown


def test_a_job_is_shown_with_its_errors_and_without_its_payload(office):
    dead = office.job(
        state="dead",
        payload={"email": "jane@example.com"},
        error=Failure("CheckViolationError", "a rule", "23514"),
    )

    shown = office.command("show", dead).stdout
    in_full = office.command("show", dead, "--payload").stdout
    as_json = json.loads(office.command("show", dead, "--json").stdout)

    assert "23514" in shown
    assert "jane@example.com" not in shown + str(as_json)
    assert "jane@example.com" in in_full
    assert as_json["errors"][0]["sqlstate"] == "23514"


def test_a_job_is_found_by_the_id_that_an_arq_client_chose(office):
    office.job(state="dead", redis_id="order-42")

    assert "order-42" in office.command("show", "order-42").stdout


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
def test_what_cannot_be_done_is_said(office, arguments):
    result = office.command(*arguments)

    assert isinstance(result.exception, UsageError)


def test_a_dead_job_runs_again_with_its_errors_kept_and_its_attempts_renewed(office, queue):
    dead = office.job(state="dead")
    queue.set(f"arq:result:{dead}", "the first end")

    result = office.command("retry", dead)
    job = office.find(dead)

    assert result.exit_code == 0, result.output
    assert (job.state, job.attempts, job.finished_at) == ("queued", 0, None)
    assert [error["error"] for error in job.errors] == ["ValueError", REPLAYED]
    assert "@" in job.errors[1]["message"]
    assert queue.zscore("arq:queue", str(dead)) is not None
    assert queue.get(f"arq:result:{dead}") is None
    assert REPLAYED in office.command("show", dead).stdout
    assert listed(office.command("list", "--json"))[0]["error"] == "ValueError"


def test_only_dead_jobs_run_again(office):
    done, dead = office.job(state="completed"), office.job(state="dead")

    result = office.command("retry", done, dead)

    assert result.exit_code == command.NOT_DONE
    assert "only dead jobs" in result.stderr
    assert office.find(done).state == "completed"
    assert office.find(dead).state == "queued"


def test_many_dead_jobs_run_again_by_a_filter_and_only_after_a_yes(office):
    dead = [office.job(state="dead") for _ in range(3)]
    other = office.job(state="dead", kind="create_user")
    arguments = ("retry", "--kind", "transfer_funds")

    refused = office.command(*arguments, input="n\n")
    assert refused.exit_code == 1
    assert "retry 3 dead jobs" in refused.output
    assert office.find(dead[0]).state == "dead"

    assert "3 jobs put back" in office.command(*arguments, "--yes").stdout
    assert [office.find(one).state for one in dead] == ["queued"] * 3
    assert office.find(other).state == "dead"


def test_a_job_that_dies_again_meanwhile_is_not_replayed_forever(office, monkeypatch):
    office.job(state="dead")
    from worker.cli.jobs import retry as replaying

    async def die_again(self, jobs):
        async with self._sessions() as session, session.begin():
            await session.execute(
                text("UPDATE jobs SET state = 'dead', finished_at = clock_timestamp()")
            )

    monkeypatch.setattr(replaying.Replayer, "_send", die_again)

    assert "1 jobs put back" in office.command("retry", "--all", "--yes").stdout


def test_with_redis_away_the_record_is_changed_and_the_relay_does_the_rest(office, monkeypatch):
    dead = office.job(state="dead")
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")

    assert office.command("retry", dead).exit_code == 0
    assert office.find(dead).state == "queued"


def test_the_errors_that_are_kept_stay_bounded(office):
    dead = office.job(state="dead")

    async def replay_often(sessions):
        for _ in range(ERRORS_KEPT_MAX + 5):
            async with sessions() as session, session.begin():
                await session.execute(
                    text("UPDATE jobs SET state = 'dead', finished_at = clock_timestamp()")
                )
                await replay_these(session, [dead], "again")

    office.do(replay_often)

    assert len(office.find(dead).errors) == ERRORS_KEPT_MAX


def transfer_job(office, amount, **options):
    async def accounts(sessions):
        return await open_account(sessions, balance="10.00"), await open_account(sessions)

    payer, payee = office.do(accounts)
    payload = {
        "from_account": str(payer),
        "to_account": str(payee),
        "amount": amount,
        "currency": "EUR",
    }
    return office.job(state="dead", payload=payload, **options), payee


@pytest.mark.parametrize(("amount", "outcome"), [("1.00", "completed"), ("99.00", "rejected")])
def test_a_dry_run_shows_the_outcome_and_changes_nothing(office, amount, outcome):
    dead, payee = transfer_job(office, amount)

    result = office.command("retry", dead, "--dry-run")

    assert result.exit_code == 0, result.output
    assert f"would be {outcome}" in result.stdout
    assert office.find(dead).state == "dead"
    assert office.do(lambda sessions: balance_of(sessions, payee)) == 0


def test_a_dry_run_of_what_would_fail_again_says_how(office):
    dead = office.job(state="dead")
    unknown = office.job(state="dead", kind="no_such_kind")

    result = office.command("retry", dead, unknown, "--dry-run")

    assert result.exit_code == command.NOT_DONE
    assert "InvalidPayload" in result.stdout
    assert "unknown kind" in result.stdout


def test_a_dry_run_of_a_report_publishes_nothing(office, tmp_path, monkeypatch):
    monkeypatch.setenv("TELLER_REPORTS_URL", tmp_path.as_uri())
    dead = office.job(
        state="dead", kind="build_report", payload={"report": "trial_balance", "format": "csv"}
    )

    result = office.command("retry", dead, "--dry-run")

    assert "would be completed" in result.stdout or "would be snoozed" in result.stdout
    assert list(tmp_path.rglob("*")) == []


def test_a_dry_run_by_filter_takes_all_of_them(office):
    dead = [transfer_job(office, "1.00")[0] for _ in range(2)]

    result = office.command("retry", "--kind", "transfer_funds", "--dry-run")

    assert {line.split()[0] for line in result.stdout.splitlines()} == set(map(str, dead))


def test_what_has_taken_effect_is_not_run_dry(office):
    done = office.job(state="completed")

    assert isinstance(office.command("retry", done, "--dry-run").exception, UsageError)


def test_a_queued_job_is_cancelled_with_a_reason_and_aborted_in_redis(office, queue):
    waiting = office.job(redis_id="order-43")

    result = office.command("cancel", "order-43", "--reason", "sold out")
    job = office.find(waiting)

    assert result.exit_code == 0, result.output
    assert (job.state, job.result) == ("cancelled", {"reason": "sold out"})
    assert queue.zscore("arq:abort", "order-43") is not None


def test_a_job_that_has_taken_effect_is_not_cancelled(office):
    done = office.job(state="completed")

    result = office.command("cancel", done)

    assert result.exit_code == command.NOT_DONE
    assert "too late" in result.stderr
    assert office.find(done).state == "completed"


def test_many_queued_jobs_are_cancelled_after_a_yes(office):
    waiting = [office.job() for _ in range(3)]
    dead = office.job(state="dead")

    assert office.command("cancel", "--all", input="n\n").exit_code == 1
    assert "3 jobs cancelled" in office.command("cancel", "--all", "--yes").stdout
    assert [office.find(one).state for one in waiting] == ["cancelled"] * 3
    assert office.find(dead).state == "dead"
