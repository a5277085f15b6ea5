"""What the pages show, without a script: the state of the service, jobs, one job."""

import asyncio
import re
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from db.desk import Wanted, page_of_jobs
from tests.worker.desk.seed import seed_incident
from worker.desk.filters import Asked, FilterError

ALIKE = text("""
    INSERT INTO jobs (kind, payload, state, finished_at, enqueued_at)
    SELECT 'send_letter', '{}', :state,
           CASE WHEN :state <> 'queued' THEN CAST(:at AS timestamptz) END, :at
    FROM generate_series(1, :jobs)
""")

HOSTILE = "<script>alert(1)</script>'\"&{{7*7}}"


def first_job(page):
    """Return where the first job of a list is."""
    return re.findall(r'class="id" href="(/jobs/[^"]+)"', page)[0]


@pytest.fixture
async def incident(rows):
    await seed_incident(rows, healthy=400)


@pytest.mark.usefixtures("incident")
async def test_the_overview_says_what_is_wrong(seat):
    page = (await (await seat.enter()).get("/")).text

    assert "500" in page
    assert "2 work, 1 silent" in page
    assert "PostgreSQL" in page


@pytest.mark.usefixtures("incident")
async def test_however_many_look_the_servers_are_asked_once_a_second(seat):
    await seat.enter()
    await asyncio.gather(*(seat.get("/live") for _ in range(50)))
    before = seat.desk.snapshots.reads
    seat.desk.snapshots.clock = lambda: seat.desk.snapshots._read_at + 0.5
    await asyncio.gather(*(seat.get("/live") for _ in range(200)))

    assert seat.desk.snapshots.reads == before


async def test_without_redis_the_overview_says_what_that_means(open_seat):
    seat = open_seat(redis_url="redis://127.0.0.1:1/0")
    page = (await (await seat.enter()).get("/")).text

    assert "does not answer" in page
    assert "nothing is lost" in page


async def test_without_a_database_every_page_says_so(open_seat):
    seat = open_seat(database_url="postgresql://127.0.0.1:1/none")
    await seat.enter()

    overview, jobs = await seat.get("/"), await seat.get("/jobs")
    assert "PostgreSQL does not answer" in overview.text
    assert (jobs.status_code, "PostgreSQL does not answer" in jobs.text) == (503, True)


@pytest.mark.parametrize("state", ["queued", "dead", "completed"])
async def test_a_page_ends_nowhere_where_a_thousand_jobs_are_of_one_instant(rows, state):
    at = datetime.now(UTC) - timedelta(hours=1)
    async with rows() as session, session.begin():
        await session.execute(ALIKE, {"state": state, "at": at, "jobs": 1_000})
    seen, before = [], None
    async with rows() as session:
        while True:
            page = await page_of_jobs(session, Wanted(state=state), before=before, limit=70)
            seen += [line.id for line in page.lines]
            before = page.lines[-1].position
            if not page.has_older:
                break
        back = await page_of_jobs(
            session, Wanted(state=state), after=page.lines[0].position, limit=70
        )

    assert len(seen) == len(set(seen)) == 1_000
    assert [line.id for line in back.lines] == seen[-70 - len(page.lines) : -len(page.lines)]


@pytest.mark.usefixtures("incident", "letters")
@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("state=dead", "500"),
        ("state=dead&kind=send_letter", "300"),
        ("error=42703", "150"),
        ("error=ConnectError", "50"),
        ("key=late-7", "1"),
        ("queue=slow", "30"),
        ("kind=send_letter&field=pages&value=2&state=dead", "300"),
        ("kind=send_letter&field=pages&value=3", "0"),
        ("attempts=5", "500"),
        ("since=1s&state=dead", "0"),
        ("until=2020-01-01", "0"),
    ],
)
async def test_a_filter_in_the_address_shows_and_counts_what_it_says(seat, query, count):
    await seat.enter()
    counted = (await seat.get(f"/jobs/count?{query}")).text.split()[0]
    listed = (await seat.get(f"/jobs?{query}")).text.count('<a class="id"')

    assert counted == count
    assert listed == min(int(count), 50)


@pytest.mark.parametrize(
    "query",
    [
        "state=lost",
        "since=yesterday",
        "parent=7",
        "attempts=many",
        "group=x",
        "field=address&kind=send_letter&value=1",
        "field=pages&value=1",
        "field=pages&kind=send_letter&value=many",
        "before=x",
        "before=2026-01-01_7",
        "until=0001-01-01",
        "paused=no",
    ],
)
@pytest.mark.usefixtures("letters")
async def test_a_filter_that_cannot_be_is_told_and_never_ignored(seat, query):
    answer = await (await seat.enter()).get(f"/jobs?{query}")

    assert answer.status_code == 400
    assert "That cannot be asked" in answer.text


def test_a_word_of_a_filter_is_short():
    with pytest.raises(FilterError, match="200"):
        Asked.read({"key": "x" * 201})


@pytest.mark.usefixtures("incident", "letters")
async def test_a_jobs_page_tells_its_life_and_hides_its_payload(seat):
    await seat.enter()
    found = await seat.get("/find", params={"q": "late-1"})
    listed = (await seat.get(found.headers["location"])).text
    page = (await seat.get(first_job(listed))).text

    assert "Try 5 failed: KeyError" in page
    assert "1 High Street" not in page
    assert "hidden" in page
    assert "<code>2</code>" in page  # a field that is marked public


@pytest.mark.parametrize("path", ["/jobs/7", f"/jobs/{'0' * 32}"])
async def test_a_job_that_is_not_there_is_not_found(seat, path):
    assert (await (await seat.enter()).get(path)).status_code == 404


async def test_what_a_caller_wrote_is_text_and_nothing_else(seat, rows):
    async with rows() as session, session.begin():
        await session.execute(
            text("""
                INSERT INTO jobs (kind, key, payload, queue, state, errors, finished_at, redis_id,
                                  traceparent, notify)
                VALUES (:x, :x, jsonb_build_object(CAST(:x AS text), 1), :x, 'dead',
                        jsonb_build_array(jsonb_build_object('try', 1, 'at', now(), 'error',
                          CAST(:x AS text), 'message', CAST(:x AS text),
                          'sqlstate', CAST(:x AS text))),
                        now(), :x, '00-' || CAST(:x AS text) || '-1-1', :x)
            """),
            {"x": HOSTILE},
        )
    await seat.enter()
    listed = (await seat.get("/jobs")).text
    job = (await seat.get(first_job(listed))).text

    for page in (listed, job, (await seat.get("/")).text):
        assert "<script>alert" not in page
        assert (
            "alert(1)" not in re.sub(r"&lt;script&gt;alert\(1\)", "", page)
            or "<script>" not in page
        )
    assert "{{7*7}}" in job
