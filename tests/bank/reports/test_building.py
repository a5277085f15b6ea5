"""Reports as a worker builds them: from the job to the file, with whatever goes wrong between."""

import asyncio
import csv
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, cast

import pytest
from sqlalchemy import text

from db.engine import create_engine, create_sessions
from db.store import Store
from jobs import registry
from jobs._reports import building, limits, render
from tests.bank.reports.kit import Books, Desk, path_of
from tests.db.kit import SilentProxy
from tests.examples import pairs
from worker.execution.outcome import Finished, Later

PROJECT = Path(__file__).parents[3]
REPORTS = ("account_statement", "trial_balance", "transfer_volume")
FORMATS = ("csv", "json", "xlsx", "pdf")
NOVEMBER = {"first_day": "2026-10-22", "last_day": "2026-11-05", "timezone": "Europe/Berlin"}
LONG_ENTRIES = 4_000
SPOOL_BYTES = 32 * 1024
"""Small, so that a long report is written in many pieces."""
CUT_BYTES = 150_000
"""About half of the long statement."""
HEARTBEATS = 20
DEADLINE_S = 30


# The executor looks a redelivery up before it asks for its snapshot, and SQLAlchemy then warns that
# it is too late to ask; `take_snapshot` begins anew all the same.


@pytest.fixture(scope="module")
def filled():
    return {}


@pytest.fixture
async def books(sessions, filled):
    """Three hundred transfers, and one account with many entries."""
    if "accounts" not in filled:
        made = await Books(sessions).open()
        await made.fill(300)
        await made.open(("busy",), ("EUR",))
        await made.fill_account(made.accounts["EUR"]["busy"], LONG_ENTRIES)
        filled["accounts"] = made.accounts
    return Books(sessions, filled["accounts"])


@pytest.fixture
def desk(sessions, tmp_path, monkeypatch):
    monkeypatch.setattr(building, "SPOOL_BYTES", SPOOL_BYTES)
    return Desk(sessions, tmp_path / "reports")


SLOW_RENDERER = """
import sys, time
from pathlib import Path
from typing import BinaryIO, cast
print(1, flush=True)
deadline = time.monotonic() + {deadline_s}
while not Path({go!r}).exists():
    if time.monotonic() > deadline:
        sys.exit("nobody let the renderer go on")
    time.sleep(0.01)
(Path(sys.argv[1]) / "report.part").write_text("rendered")
"""


@pytest.fixture
def slow_renderer(tmp_path, monkeypatch):
    """Have a report rendered by a program that stops after one line, until this file exists."""
    go, program = tmp_path / "go", tmp_path / "project/jobs/_reports/render.py"
    program.parent.mkdir(parents=True)
    program.write_text(SLOW_RENDERER.format(deadline_s=DEADLINE_S, go=str(go)))
    monkeypatch.setattr(building, "PROJECT", tmp_path / "project")
    return go


def wish(books, report, format_="csv", **days):
    account = {"account": str(books.accounts["EUR"]["ada"])} if report == REPORTS[0] else {}
    return {"report": report, "format": format_, **account, **days}


def long_statement(books, format_):
    account = str(books.accounts["EUR"]["busy"])
    return {"report": REPORTS[0], "format": format_, "account": account}


@pytest.mark.parametrize("report", REPORTS)
@pytest.mark.parametrize("format_", FORMATS)
async def test_every_report_comes_in_every_format(books, desk, report, format_):
    outcome = await desk.build(**wish(books, report, format_, **NOVEMBER))

    assert isinstance(outcome, Finished)
    assert outcome.state == "completed", desk.told
    result = outcome.result
    path = path_of(result["url"])
    assert path.parent == desk.directory / report / "2026-11-05"
    content = path.read_bytes()
    assert result["sha256"] == hashlib.sha256(content).hexdigest()
    assert result["size_bytes"] == len(content) > 100
    assert result["lines"] > 0
    assert desk.files() == [path]
    assert list((desk.directory / ".unfinished").iterdir()) == []


@pytest.mark.examples
@pytest.mark.parametrize(("report", "format_"), pairs(REPORTS, FORMATS))
async def test_a_run_after_a_crash_makes_the_same_bytes(books, sessions, tmp_path, report, format_):
    """Two workers that know nothing of each other, at two snapshots, with transfers in between."""
    job = {"job_id": uuid.uuid4(), "accepted_at": datetime.now(UTC)}
    one = Desk(sessions, tmp_path / "one")
    two = Desk(sessions, tmp_path / "two")
    open_end = wish(books, report, format_, first_day="2026-10-22")
    first = await one.built(**open_end, **job)
    async with sessions() as session, session.begin():
        await session.execute(text("DELETE FROM jobs WHERE id = :id"), {"id": job["job_id"]})
    await books.post(datetime.now(UTC), await books.world("EUR"), books.accounts["EUR"]["ada"], 1)
    second = await two.built(**open_end, **job, try_number=2)

    assert second.relative_to(two.directory) == first.relative_to(one.directory)
    assert second.read_bytes() == first.read_bytes()


async def test_a_second_delivery_reads_in_one_snapshot_too(books, desk):
    delivery = desk.delivery(**wish(books, "trial_balance"), try_number=2)
    outcome = await desk.executor.run(registry()["build_report"], delivery)
    assert isinstance(outcome, Finished)
    assert outcome.state == "completed"


async def test_reports_of_neighbouring_days_join_without_a_gap(books, desk):
    days = [
        await desk.built(**wish(books, REPORTS[0], "json", first_day=day, last_day=day))
        for day in ("2026-10-24", "2026-10-25", "2026-10-26")
    ]
    sections = [json.loads(path.read_text())["sections"][0] for path in days]
    for before, after in pairwise(sections):
        assert after["opening_balance"] == before["closing_balance"]


async def test_an_accountants_program_agrees_with_our_books(books, desk, tmp_path):
    """Every transfer goes to beancount, which then checks our trial balance's closing column."""
    path = await desk.built(**wish(books, "trial_balance", "csv", last_day="2026-11-02"))
    with path.open(newline="") as stream:
        lines = [row for row in csv.DictReader(stream) if row["line"] == "account"]
    assert len(lines) > 10
    ledger = tmp_path / "ledger.beancount"
    ledger.write_text("\n".join(_beancount(await books.rows(), lines)) + "\n")

    code, told = await asyncio.to_thread(_bean_check, ledger)
    assert (code, told) == (0, "")

    ledger.write_text(
        ledger.read_text().replace(" balance Liabilities:A0 ", " balance Liabilities:A0 1")
    )
    _, told = await asyncio.to_thread(_bean_check, ledger)
    assert "Balance failed" in told


def _bean_check(ledger):
    check = Path(sys.executable).parent / "bean-check"
    told = subprocess.run([check, ledger], capture_output=True, text=True, timeout=60, check=False)
    return told.returncode, told.stderr


def _beancount(rows, lines):
    names = {code: f"Liabilities:A{n}" for n, code in enumerate(sorted({r["code"] for r in rows}))}
    digits = {"EUR": 2, "JPY": 0, "KWD": 3}
    yield from (f"1970-01-01 open {name}" for name in names.values())
    transfers = {}
    for row in rows:
        transfers.setdefault(row["transfer_id"], []).append(row)
    for entries in transfers.values():
        if entries[0]["posted_at"] >= datetime(2026, 11, 10, tzinfo=UTC):
            continue
        yield f'{entries[0]["posted_at"].date()} * "transfer"'
        for entry in entries:
            amount = Decimal(entry["amount"]).scaleb(-digits[entry["currency"]])
            # A liability is credit-normal: beancount counts credits down.
            yield f"  {names[entry['code']]}  {-amount} {entry['currency']}"
    for line in lines:
        closing = Decimal(line["closing_debit"] or 0) - Decimal(line["closing_credit"] or 0)
        name = names[line["account"]]
        yield f"2026-11-03 balance {name} {closing} {line['currency']}"


async def test_a_report_waits_while_a_transfer_may_still_belong_to_it(books, sessions, desk):
    account = books.accounts["EUR"]["donald"]
    async with sessions() as slow:
        await slow.execute(
            text("SELECT post_transfer(:id, world_account_id('EUR'), :to, 99, 'EUR')"),
            {"id": uuid.uuid4(), "to": account},
        )
        async with sessions() as session:
            accepted_at = await Store(session).reports.time()
        job = {"job_id": uuid.uuid4(), "accepted_at": accepted_at}
        wanted = {"report": REPORTS[0], "format": "json", "account": str(account)}
        outcome = await desk.build(**wanted, **job)
        assert outcome == Later(timedelta(seconds=1))
        assert desk.files() == []
        await slow.commit()

    path = await desk.built(**wanted, **job, try_number=2)
    assert json.loads(path.read_text())["sections"][0]["lines"][-1]["credit"] == "0.99"


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"report": REPORTS[0], "account": str(uuid.uuid4())}, "unknown_account"),
        ({"report": REPORTS[1], "first_day": "2900-01-01"}, "period_not_begun"),
        ({"report": REPORTS[2], "first_day": "2000-01-01"}, "period_too_long"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_cannot_be_reported_is_rejected_with_a_code(books, desk, asked, code):
    outcome = await desk.build(format="csv", **asked)
    assert isinstance(outcome, Finished)
    assert (outcome.state, outcome.result["code"]) == ("rejected", code)
    assert desk.files() == []


async def test_a_pdf_that_would_be_too_long_is_rejected(books, desk, monkeypatch):
    outcome = await desk.build(**long_statement(books, "pdf"))
    assert isinstance(outcome, Finished)
    assert (outcome.state, outcome.result["code"]) == ("rejected", "report_too_large")
    assert (
        f"{LONG_ENTRIES:,} lines, a pdf at most {limits.PDF_LINES_MAX:,}"
        in (outcome.result["message"])
    )


async def test_neither_logs_nor_results_name_the_holder(books, desk, caplog):
    outcome = await desk.build(**wish(books, REPORTS[0], "json"))
    assert "ada" in path_of(outcome.result["url"]).read_text()
    assert '"ada"' not in json.dumps(outcome.result) + json.dumps(desk.told) + caplog.text


async def test_progress_counts_every_line_in_every_stage(books, desk):
    await desk.built(**long_statement(books, "xlsx"))

    stages = [stage for _, _, stage in desk.progress]
    assert sorted(set(stages), key=stages.index) == ["reading", "writing", "publishing"]
    assert desk.progress[-1] == (LONG_ENTRIES, LONG_ENTRIES, "publishing")
    assert all(0 <= done <= total == LONG_ENTRIES for done, total, _ in desk.progress)
    done = [done for done, _, stage in desk.progress if stage == "writing"]
    assert done == sorted(done)
    assert done[0] == 256


def test_a_renderer_tells_how_far_it_is(monkeypatch):
    monkeypatch.setattr(render, "TOLD_EVERY_S", -1.0)
    told = io.StringIO()
    wrote = render.Progress(told)
    for _ in range(800):
        wrote()

    assert told.getvalue().split() == ["256", "512", "768"]


async def test_heartbeats_go_on_while_the_renderer_is_slow(books, desk, slow_renderer):
    """A lease is renewed every second or so, however long a report takes."""
    reached = asyncio.Event()
    desk.on_progress = lambda stage: reached.set() if stage == "writing" else None
    working = asyncio.create_task(desk.built(**long_statement(books, "xlsx")))
    await asyncio.wait_for(reached.wait(), DEADLINE_S)
    for _ in range(HEARTBEATS):
        await asyncio.sleep(0.01)
    slow_renderer.touch()

    assert (await working).read_text() == "rendered"


async def test_heartbeats_go_on_while_the_disk_is_slow(books, desk, monkeypatch):
    class SlowFile:
        def __init__(self, file):
            self._file = file

        def write(self, data):
            writing.set()
            assert beaten.wait(DEADLINE_S), "the loop stood still while the disk did"
            return self._file.write(data)

    writing, beaten = threading.Event(), threading.Event()
    spool = building.Spool
    monkeypatch.setattr(
        building, "Spool", lambda file, *rest: spool(cast("BinaryIO", SlowFile(file)), *rest)
    )
    working = asyncio.create_task(desk.built(**long_statement(books, "csv")))
    assert await asyncio.to_thread(writing.wait, DEADLINE_S)
    for _ in range(HEARTBEATS):
        await asyncio.sleep(0.01)
    beaten.set()

    assert (await working).exists()


@pytest.mark.parametrize("stage", ["reading", "writing"])
async def test_cancelling_a_report_stops_it_and_leaves_nothing(
    books, sessions, desk, slow_renderer, stage
):
    reached = asyncio.Event()
    desk.on_progress = lambda reported: reached.set() if reported == stage else None
    working = asyncio.create_task(desk.build(**long_statement(books, "xlsx")))
    await asyncio.wait_for(reached.wait(), DEADLINE_S)
    folders = list((desk.directory / ".unfinished").iterdir())
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working

    assert len(folders) == 1
    assert list((desk.directory / ".unfinished").iterdir()) == []
    assert desk.files() == []
    assert _renderers(folders[0]) == []
    async with sessions() as session:
        assert await session.scalar(text("SELECT 1")) == 1


def _renderers(folder):
    """The rendering processes that work in a folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().split(b"\0")
        except OSError:
            continue
        if str(folder).encode() in words:
            found.append(int(entry.parent.name))
    return found


async def test_a_renderer_that_dies_is_a_failure_that_quotes_nothing(books, desk, monkeypatch):
    monkeypatch.setattr(building, "PROJECT", desk.directory.parent)
    outcome = await desk.build(**wish(books, REPORTS[0], "pdf"))
    assert isinstance(outcome, Later)
    assert desk.told[-1][0] == "job.failed"
    assert desk.files() == []
    assert list((desk.directory / ".unfinished").iterdir()) == []


async def test_a_connection_lost_in_the_middle_of_reading_is_tried_again(
    books, database_url, tmp_path
):
    proxy = SilentProxy(database_url)
    async with proxy.open() as url:
        engine = create_engine(url, pool_size=1, application_name="teller-tests")
        desk = Desk(create_sessions(engine), tmp_path / "reports")
        proxy.cut_after(CUT_BYTES)
        path = await desk.built(**long_statement(books, "csv"))
        await engine.dispose()

    assert path.stat().st_size > CUT_BYTES
    assert [name for name, _ in desk.told] == ["job.run_again", "job.finished"]
    assert len(path.read_text().splitlines()) == LONG_ENTRIES + 4


WORKER = """
import asyncio, sys, uuid
from pathlib import Path
from typing import BinaryIO, cast
sys.path.insert(0, {project!r})
from db.engine import create_engine, create_sessions
from jobs._reports import building
from tests.bank.reports.kit import Desk

def stop():
    print("here", flush=True)
    sys.stdin.read()  # until this process is killed

async def main(url, directory, job_id, account, last_stage):
    building.SPOOL_BYTES = {spool_bytes}
    engine = create_engine(url, pool_size=2, application_name="doomed")
    desk = Desk(create_sessions(engine), Path(directory))
    desk.on_progress = lambda stage: stop() if stage == last_stage else None
    await desk.build(job_id=uuid.UUID(job_id), report="account_statement", format="xlsx",
                     account=account)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("stage", ["reading", "writing"])
async def test_a_worker_killed_in_the_middle_leaves_no_torn_file(books, desk, database_url, stage):
    job_id = uuid.uuid4()
    account = str(books.accounts["EUR"]["busy"])
    arguments = [database_url, str(desk.directory), str(job_id), account, stage]
    await asyncio.to_thread(_kill_worker, arguments)
    (folder,) = (desk.directory / ".unfinished").iterdir()
    assert desk.files() == []

    path = await desk.built(job_id=job_id, try_number=2, **long_statement(books, "xlsx"))
    assert desk.files() == [path]
    assert not folder.exists()
    await asyncio.to_thread(_wait_until_gone, folder)


def _kill_worker(arguments):
    """Kill a worker that builds a report when it is as far as it is told to get."""
    program = WORKER.format(project=str(PROJECT), spool_bytes=SPOOL_BYTES)
    with subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=PROJECT,
    ) as doomed:
        assert doomed.stdout is not None
        assert doomed.stdout.readline() == "here\n"
        doomed.send_signal(signal.SIGKILL)
        doomed.wait(DEADLINE_S)


def _wait_until_gone(folder):
    """The orphaned renderer ends with its next word, since nobody listens."""
    deadline = time.monotonic() + DEADLINE_S
    while _renderers(folder):
        assert time.monotonic() < deadline
        time.sleep(0.05)


async def test_the_command_builds_a_report_straight_away(books, database_url, tmp_path):
    environment = {
        **os.environ,
        "DATABASE_URL": database_url,
        "REDIS_URL": "redis://127.0.0.1:1/0",
        "TELLER_REPORTS_URL": (tmp_path / "reports").as_uri(),
    }

    async def command(*words):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "worker", "report", *words),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=PROJECT,
            env=environment,
        )
        said, complained = await process.communicate()
        return process.returncode, said.decode(), complained.decode()

    code, said, complained = await command("trial_balance", "--format", "csv")
    assert (code, complained.strip()) == (0, "")
    assert path_of(said.strip()).read_text().startswith("line,currency,account,")

    code, said, complained = await command("account_statement")
    assert (code, said) == (2, "")
    assert "an account_statement needs an account" in complained

    code, said, complained = await command("account_statement", "--account", str(uuid.uuid4()))
    assert (code, said) == (1, "")
    assert complained.strip().startswith("unknown_account")
