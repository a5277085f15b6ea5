"""`python -m worker enqueue`: one job, or a file of them, against real servers."""

import asyncio
import io
import json
import sys
import uuid

import pytest
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from typer.testing import CliRunner

from tests.worker.running import running_worker
from worker.__main__ import app
from worker.cli.enqueue import file as enqueue_file
from worker.cli.enqueue import loader as loading
from worker.cli.enqueue.keys import Keys
from worker.cli.enqueue.lines import read_lines
from worker.cli.enqueue.loader import Loader, LoadingStoppedError
from worker.errors import TellerError

PAYLOAD = {"address": "12 High Street"}


@pytest.fixture
def run(letters, database_url, redis_url, monkeypatch):
    """Run the command line in this process, outside the test's own event loop."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("REDIS_URL", redis_url)

    async def invoke(*arguments, stdin=None):
        given = [str(argument) for argument in arguments]
        return await asyncio.to_thread(CliRunner().invoke, app, ["enqueue", *given], input=stdin)

    return invoke


@pytest.fixture
async def count(sessions):
    async with sessions() as session, session.begin():
        await session.execute(text("DELETE FROM jobs"))

    async def jobs():
        async with sessions() as session:
            return await session.scalar(text("SELECT count(*) FROM jobs"))

    return jobs


def a_line(pages=1, address="12 High Street", **changes):
    payload = {"address": address, "pages": pages}
    return json.dumps({"kind": "send_letter", "payload": payload} | changes)


@pytest.fixture
def file(tmp_path):
    def write(*lines):
        path = tmp_path / "jobs.jsonl"
        path.write_text("\n".join(lines) + "\n")
        return path

    return write


async def test_one_job_prints_its_id_and_twice_is_once(run, count, redis):
    first = await run("send_letter", json.dumps(PAYLOAD), "--key", "k")
    again = await run("send_letter", json.dumps(PAYLOAD), "--key", "k")

    uuid.UUID(first.stdout.strip())  # raises if it is none
    assert again.stdout == f"{first.stdout.strip()}  (was there already)\n"
    assert await count() == 1
    assert await redis.zcard("arq:queue") == 1


async def test_a_payload_comes_from_standard_input(run, count):
    assert (await run("send_letter", "-", stdin=json.dumps(PAYLOAD))).exit_code == 0
    assert await count() == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nope", "{}"], "known kinds: "),
        (["send_letter", "{}"], "address: Field required"),
        (["send_letter", "{"], "not JSON"),
        (["send_letter", json.dumps(PAYLOAD), "--key", ""], "1 to 200"),
        (["send_letter", json.dumps(PAYLOAD), "--delay", "soon"], "90s, 5m, 2h, 1d"),
        (["send_letter", json.dumps(PAYLOAD), "--run-at", "noon"], "2026-01-31T09:00"),
        (["send_letter", json.dumps(PAYLOAD), "--run-at", "2030-01-01"], "time zone"),
        (["send_letter"], "give KIND and JSON"),
        ([], "give KIND and JSON"),
        (["send_letter", "{}", "--file", "x"], "from its lines"),
        (["--file", "nowhere.jsonl"], "cannot read nowhere.jsonl"),
        (["--file", "-"], "--batch NAME"),
        (["--file", "same", "--rejects", "same"], "overwrite"),
    ],
)
async def test_what_cannot_be_done_is_said_in_one_line(run, count, arguments, said):
    answer = await run(*arguments)

    assert isinstance(answer.exception, TellerError)
    assert said in str(answer.exception)
    assert await count() == 0


async def test_waiting_prints_the_answer_and_a_refusal_fails(
    run, count, redis, database_url, redis_url
):
    async with running_worker(database_url, redis_url):
        refused = await run("send_letter", '{"address": "nowhere"}', "--wait")
        sent = await run("send_letter", json.dumps(PAYLOAD), "--wait")

    assert json.loads(refused.stdout.splitlines()[1]) == {
        "rejected": {"code": "unknown_address", "message": "nobody lives there"}
    }
    assert refused.exit_code == 1
    job_id, answer = sent.stdout.splitlines()
    assert json.loads(answer) == {"letter_id": job_id}
    assert sent.exit_code == 0


async def test_a_file_twice_enqueues_nothing_new(run, count, file, redis):
    path = file(a_line(), a_line(), a_line(2), "", a_line(3, key="mine"))
    first = await run("--file", path)
    again = await run("--file", path)

    assert first.stdout == "5 lines: 4 enqueued, 0 were there already, 0 bad\n"
    assert again.stdout == "5 lines: 0 enqueued, 4 were there already, 0 bad\n"
    assert await count() == 4
    assert await redis.zcard("arq:queue") == 4


async def test_bad_lines_are_told_with_their_numbers_and_the_others_get_in(
    run, count, file, tmp_path
):
    path = file(
        a_line(),
        "{broken",
        a_line(2),
        a_line(kind="nope"),
        a_line(3, key="k"),
        a_line(4, key="k"),
    )
    answer = await run("--file", path, "--rejects", tmp_path / "rejects.jsonl")
    rejects = [json.loads(line) for line in (tmp_path / "rejects.jsonl").read_text().splitlines()]

    assert answer.exit_code == 1
    assert answer.stdout == "6 lines: 3 enqueued, 0 were there already, 3 bad\n"
    assert "line 2: not JSON" in answer.stderr
    assert "line 4: unknown job kind 'nope': known kinds" in answer.stderr
    assert "line 6: job" in answer.stderr
    assert [reject["line"] for reject in rejects] == [2, 4, 6]
    assert rejects[0]["text"] == "{broken"
    assert await count() == 3


@pytest.mark.parametrize("kind", ["itself", "symbolic link", "hard link", "link to a link"])
async def test_a_file_is_never_its_own_rejects_file_by_whatever_name(
    run, count, file, tmp_path, kind
):
    path = file(*["{broken"] * 5, a_line())
    before = path.read_bytes()
    other = tmp_path / "other"
    match kind:
        case "itself":
            other = path.parent / "." / path.name
        case "symbolic link":
            other.symlink_to(path)
        case "hard link":
            other.hardlink_to(path)
        case "link to a link":
            (tmp_path / "between").hardlink_to(path)
            other.symlink_to(tmp_path / "between")

    for source, rejects in ((path, other), (other, path)):
        answer = await run("--file", source, "--rejects", rejects)

        assert "would overwrite" in str(answer.exception)
        assert path.read_bytes() == before
    assert await count() == 0


def test_standard_input_is_known_as_the_rejects_file_too(file, monkeypatch):
    path = file("{broken")
    with path.open() as source:
        monkeypatch.setattr(sys, "stdin", source)

        with pytest.raises(TellerError, match="would overwrite"):
            asyncio.run(enqueue_file.enqueue_file("-", "b", path))


async def test_a_rejects_file_that_cannot_be_written_is_told_before_any_line(
    run, count, file, tmp_path
):
    path = file(a_line(), "{broken")

    for rejects in (tmp_path / "missing" / "rejects", tmp_path):
        answer = await run("--file", path, "--rejects", rejects)
        assert f"cannot write {rejects}" in str(answer.exception)
    assert await count() == 0

    full = await run("--file", path, "--rejects", "/dev/full")
    assert "cannot write /dev/full: No space left" in str(full.exception)


async def test_rejects_of_an_earlier_run_are_replaced_by_new_ones_and_only_by_them(
    run, file, tmp_path
):
    rejects = tmp_path / "rejects.jsonl"
    await run("--file", file(a_line()), "--rejects", rejects)
    assert not rejects.exists()

    await run("--file", file("{one", "{two"), "--rejects", rejects)
    await run("--file", file("{three"), "--rejects", rejects)
    await run("--file", file(a_line()), "--rejects", rejects)
    assert [json.loads(line)["text"] for line in rejects.read_text().splitlines()] == ["{three"]


async def test_a_corrected_file_adds_only_what_was_corrected(run, count, file):
    await run("--file", file(a_line(), "{broken", a_line(2)))
    answer = await run("--file", file(a_line(2), a_line(5), a_line()))

    assert answer.stdout == "3 lines: 1 enqueued, 2 were there already, 0 bad\n"


async def test_another_batch_of_equal_lines_is_other_jobs(run, count, file):
    path = file(a_line())
    await run("--file", path, "--batch", "monday")
    await run("--file", path, "--batch", "tuesday")

    assert await count() == 2


async def test_only_so_many_bad_lines_are_shown(run, count, file):
    answer = await run("--file", file(*["x"] * 50))

    assert answer.stderr.count("not JSON") == enqueue_file.BAD_LINES_SHOWN_MAX
    assert "and 30 more bad lines; --rejects FILE keeps all" in answer.stderr


async def test_a_pipe_is_read_as_well(run, count):
    answer = await run("--file", "-", "--batch", "b", stdin=f"{a_line()}\n{a_line(2)}")

    assert answer.stdout == "2 lines: 2 enqueued, 0 were there already, 0 bad\n"


async def test_more_lines_than_a_batch_all_get_in(run, count, file):
    path = file(
        *(a_line(address=f"{n} High Street") for n in range(1, loading.BATCH_LINES_MAX * 2 + 2))
    )
    answer = await run("--file", path)

    assert answer.stdout == "2,001 lines: 2,001 enqueued, 0 were there already, 0 bad\n"
    assert await count() == 2_001


async def test_personal_payloads_are_rung_by_id_alone(run, count, redis):
    line = json.dumps({"kind": "send_card", "payload": {"name": "Wilhelmina"}})
    await run("--file", "-", "--batch", "b", stdin=line)
    (job_id,) = await redis.zrange("arq:queue", 0, -1)

    assert b"Wilhelmina" not in await redis.get(b"arq:job:" + job_id)


class Breaking:
    """Sessions that fail a few times, as a database does that restarts."""

    def __init__(self, sessions, failures):
        self._sessions = sessions
        self.left = failures

    def __call__(self):
        if self.left:
            self.left -= 1
            raise PoolTimeoutError  # a connection that did not come about
        return self._sessions()


def a_loader(sessions):
    return Loader(
        sessions,
        Redis(host="127.0.0.1", port=1),
        "arq:queue",
        on_bad=lambda _: None,
        on_progress=lambda _: None,
    )


async def test_a_database_that_comes_back_is_waited_for_and_a_lost_redis_is_not(
    sessions, count, monkeypatch
):
    monkeypatch.setattr(loading, "RETRY_BASE_S", 0)
    with Keys("b") as keys:
        totals = await a_loader(Breaking(sessions, 3)).load(
            read_lines(io.BytesIO(a_line().encode())), keys
        )

    assert totals.created == 1
    assert await count() == 1


async def test_a_database_that_stays_away_ends_with_the_line_to_go_on_from(
    sessions, count, monkeypatch
):
    monkeypatch.setattr(loading, "RETRY_BASE_S", 0)
    with Keys("b") as keys, pytest.raises(LoadingStoppedError, match=r"before line 1 .*run the"):
        await a_loader(Breaking(sessions, 99)).load(read_lines(io.BytesIO(a_line().encode())), keys)
