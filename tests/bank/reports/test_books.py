"""What reports read: sums against an oracle in Python, one moment, and nothing posted too late."""

import asyncio
import csv
import io
import random
import re
import uuid
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import text

import db.engine
from db.bank.reports import BooksError, Snapshot
from db.engine import create_engine, create_sessions
from db.store import Store
from jobs._reports.as_csv import guarded
from tests.bank.reports.kit import Books, post_at

LIMIT = timedelta(seconds=30)
BERLIN = ZoneInfo("Europe/Berlin")
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def filled():
    return {}


@pytest.fixture
async def books(sessions, filled):
    """Six hundred transfers over four weeks; the same for the whole module."""
    if "accounts" not in filled:
        made = await Books(sessions).open()
        filled["last"] = await made.fill(600)
        filled["accounts"] = made.accounts
    return Books(sessions, filled["accounts"])


@pytest.fixture
async def own_books(new_database_url):
    """A ledger that a test may spoil."""
    engine = create_engine(new_database_url, pool_size=8, application_name="teller-tests")
    made = await Books(create_sessions(engine)).open(("ada", "bob"), ("EUR",))
    yield made
    await engine.dispose()


async def snapshot_of(session, end=None, timezone="UTC"):
    reports = Store(session).reports
    end = end or await reports.time()
    seen = await reports.take_snapshot(end=end, timezone=timezone, limit=LIMIT)
    assert isinstance(seen, Snapshot)
    return reports, seen


async def copied(copy):
    """The rows that a COPY streamed."""
    streamed = io.BytesIO()

    async def sink(chunk):
        streamed.write(chunk)

    await copy(sink)
    return list(csv.reader(io.StringIO(streamed.getvalue().decode())))


PERIODS = [
    (None, datetime(2026, 11, 10, tzinfo=UTC)),
    (datetime(2026, 10, 25, tzinfo=BERLIN), datetime(2026, 10, 26, tzinfo=BERLIN)),
    (datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 11, 8, tzinfo=UTC)),
    (datetime(2026, 9, 1, tzinfo=UTC), datetime(2026, 10, 1, tzinfo=UTC)),
]


@pytest.mark.parametrize(("start", "end"), PERIODS, ids=str)
async def test_a_statement_says_what_an_oracle_in_python_says(books, sessions, start, end):
    account = books.accounts["EUR"]["ada"]
    entries = [row for row in await books.rows() if row["account_id"] == account]
    since = start or LONG_AGO
    inside = [row for row in entries if since <= row["posted_at"] < end]
    opening = sum(row["amount"] for row in entries if row["posted_at"] < since)

    async with sessions() as session:
        reports, _ = await snapshot_of(session, end)
        statement = await reports.statement(account, start, end)
        rows = await copied(lambda sink: reports.copy_statement(statement, sink, guarded=True))

    assert statement.opening == opening
    assert statement.credits == sum(row["amount"] for row in inside if row["amount"] > 0)
    assert statement.debits == -sum(row["amount"] for row in inside if row["amount"] < 0)
    assert statement.closing == opening + sum(row["amount"] for row in inside)
    assert (statement.first_version, statement.last_version) == (
        (inside[0]["version"], inside[-1]["version"]) if inside else (None, None)
    )
    balance = opening
    assert len(rows) == statement.lines == len(inside)
    for row, entry in zip(rows, inside, strict=True):
        balance += entry["amount"]
        signed = round(float(row[9] or 0) * 100) - round(float(row[8] or 0) * 100)
        assert (row[2], signed, row[10]) == (
            str(entry["version"]),
            entry["amount"],
            f"{balance // 100}.{balance % 100:02}",
        )
        assert datetime.fromisoformat(row[3]) == entry["posted_at"]
        assert re.fullmatch(r"[-\d]{10}T[:.\d]{8,15}[+-]\d\d:\d\d", row[3])  # as JSON has it
        assert row[4] == str(entry["transfer_id"])


async def test_an_account_without_entries_has_a_statement_of_nothing(own_books):
    account = own_books.accounts["EUR"]["ada"]
    async with own_books.sessions() as session:
        reports, seen = await snapshot_of(session)
        statement = await reports.statement(account, None, seen.taken_at)
        rows = await copied(lambda sink: reports.copy_statement(statement, sink, guarded=True))
        series = await reports.balance_over_time(statement)

    assert (statement.lines, statement.opening, statement.closing) == (0, 0, 0)
    assert (rows, series) == ([], [])


async def test_an_unknown_account_has_no_statement(sessions):
    async with sessions() as session:
        reports, seen = await snapshot_of(session)
        assert await reports.statement(uuid.uuid4(), None, seen.taken_at) is None


async def test_the_chart_goes_from_the_first_entry_to_the_closing_balance(books, sessions, filled):
    account = books.accounts["EUR"]["ada"]
    async with sessions() as session:
        reports, _ = await snapshot_of(session)
        statement = await reports.statement(account, None, filled["last"] + timedelta(days=1))
        series = await reports.balance_over_time(statement)

    assert 2 < len(series) <= 241
    assert series[-1][1] == statement.closing
    assert series == sorted(series, key=lambda point: point[0])


@pytest.mark.parametrize(("start", "end"), PERIODS, ids=str)
async def test_a_trial_balance_says_what_an_oracle_in_python_says(books, sessions, start, end):
    since = start or LONG_AGO
    expected = defaultdict(Counter)
    for row in await books.rows():
        line = expected[row["currency"], row["code"]]
        if row["posted_at"] < since:
            line["opening"] += row["amount"]
        elif row["posted_at"] < end:
            line["moved"] += 1
            line["debits" if row["amount"] < 0 else "credits"] += abs(row["amount"])
    shown = {key: line for key, line in expected.items() if line["opening"] or line["moved"]}

    async with sessions() as session:
        reports, _ = await snapshot_of(session, end)
        balance = await reports.trial_balance(start, end, currency=None)
        rows = await copied(lambda sink: reports.copy_trial_balance(balance, sink, guarded=False))

    assert len(rows) == balance.lines == len(shown)
    exponents = {"EUR": 2, "JPY": 0, "KWD": 3}
    for row in rows:
        line = shown[row[1], row[2]]

        def minor(text, currency=row[1]):
            return round(float(text or 0) * 10 ** exponents[currency])

        assert int(row[5]) == line["moved"]
        assert minor(row[7]) - minor(row[6]) == line["opening"]
        assert (minor(row[8]), minor(row[9])) == (line["debits"], line["credits"])
        assert minor(row[10]) == line["credits"] - line["debits"]
        closing = line["opening"] + line["credits"] - line["debits"]
        assert minor(row[12]) - minor(row[11]) == closing
    assert [row[1:3] for row in rows] == sorted(row[1:3] for row in rows)
    for totals in balance.currencies:
        assert totals.opening_debit == totals.opening_credit
        assert totals.debits == totals.credits
        assert totals.closing_debit == totals.closing_credit


async def test_a_trial_balance_of_one_currency_leaves_the_others_out(books, sessions):
    async with sessions() as session:
        reports, seen = await snapshot_of(session)
        balance = await reports.trial_balance(None, seen.taken_at, currency="KWD")
    assert [totals.currency for totals in balance.currencies] == ["KWD"]


async def test_volume_says_what_an_oracle_in_python_says(books, sessions):
    days = [datetime(2026, 10, day, tzinfo=BERLIN) for day in range(22, 32)]
    rows = await books.rows()
    codes = {row["account_id"]: row["code"] for row in rows}
    async with sessions() as session:
        transfers = (await session.execute(text("SELECT * FROM transfers"))).all()
        reports, _ = await snapshot_of(session)
        volume = await reports.transfer_volume([day.astimezone(UTC) for day in days], currency=None)

    assert len(volume.midnights) == len(days) - 1
    by_day = defaultdict(list)
    for transfer in transfers:
        day = transfer.posted_at.astimezone(BERLIN).date()
        by_day[transfer.currency, day].append(transfer)
    assert [one.currency for one in volume.currencies] == ["EUR", "JPY", "KWD"]
    for one in volume.currencies:
        world = await books.world(one.currency)
        inside = [transfer for day in days[1:-1] for transfer in by_day[one.currency, day.date()]]
        inside.sort(key=lambda transfer: (-transfer.amount, transfer.posted_at, transfer.id))
        assert [(t.id, t.posted_at, t.payer, t.payee, t.amount) for t in one.largest] == [
            (t.id, t.posted_at, codes[t.from_account], codes[t.to_account], t.amount)
            for t in inside[:10]
        ]
        for line, day in zip(one.days, days[1:-1], strict=True):
            posted = by_day[one.currency, day.date()]
            amounts = sorted(transfer.amount for transfer in posted)
            before = by_day[one.currency, day.date() - timedelta(days=1)]
            people = {t.from_account for t in posted} | {t.to_account for t in posted}
            assert line.transfers == len(posted)
            assert line.total == sum(amounts)
            assert line.largest == max(amounts, default=0)
            assert line.median == (amounts[(len(amounts) - 1) // 2] if amounts else 0)
            assert line.deposits == sum(t.amount for t in posted if t.from_account == world)
            assert line.withdrawals == sum(t.amount for t in posted if t.to_account == world)
            assert line.accounts == len(people - {world})
            assert line.transfers_before == len(before)
            assert line.total_before == sum(transfer.amount for transfer in before)
            versions = [
                row["version"]
                for row in rows
                if row["account_id"] == world
                and row["posted_at"].astimezone(BERLIN).date() == day.date()
            ]
            assert line.first_entry == min(versions, default=None)
            assert line.last_entry == max(versions, default=None)


async def test_among_equally_large_transfers_the_earlier_come_first(own_books):
    world = await own_books.world("EUR")
    ada, bob = own_books.accounts["EUR"].values()
    start = datetime(2026, 11, 1, tzinfo=UTC)
    hours = [start + timedelta(hours=hour) for hour in range(12)]
    for at in reversed(hours):
        await own_books.post(at, world, ada, 500)
    await own_books.post(hours[5], ada, bob, 501)
    day = timedelta(days=1)
    async with own_books.sessions() as session:
        reports, _ = await snapshot_of(session)
        # The day of the transfers is first the period, and then the one it is compared with.
        volume = await reports.transfer_volume([start - day, start, start + day], currency=None)
        later = await reports.transfer_volume([start, start + day, start + 2 * day], currency=None)

    (one,) = volume.currencies
    assert [(t.amount, t.posted_at) for t in one.largest] == [
        (501, hours[5]),
        *((500, at) for at in hours[:9]),
    ]
    assert later.currencies == ()


async def test_refused_transfers_are_counted_by_day_and_reason(own_books):
    async with own_books.sessions() as session, session.begin():
        now = await Store(session).reports.time()
        for code in ("insufficient_funds", "insufficient_funds", "unknown_account"):
            await session.execute(
                text("""
                    INSERT INTO jobs (kind, payload, state, result, finished_at)
                    VALUES ('transfer_funds', '{"currency": "EUR"}', 'rejected',
                            jsonb_build_object('code', CAST(:code AS text)), clock_timestamp())
                """),
                {"code": code},
            )
    async with own_books.sessions() as session:
        reports, _ = await snapshot_of(session)
        day = timedelta(days=1)
        volume = await reports.transfer_volume([now - day, now, now + day], currency=None)

    (one,) = volume.currencies
    assert one.rejected_by_reason == {"insufficient_funds": 2, "unknown_account": 1}
    assert one.days[0].rejected == 3
    assert one.days[0].transfers == 0


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ("UPDATE entries SET balance_after = balance_after + 5 WHERE version = 3", "running"),
        ("DELETE FROM entries WHERE version = 2 AND amount > 0", "versions 1 and 3"),
    ],
    ids=["a running balance that is off", "a missing entry"],
)
async def test_no_statement_is_made_of_entries_that_contradict_themselves(
    own_books, spoil, message
):
    await spoiled(own_books, spoil)
    async with own_books.sessions() as session:
        reports, seen = await snapshot_of(session)
        with pytest.raises(BooksError, match=message):
            await reports.statement(own_books.accounts["EUR"]["ada"], None, seen.taken_at)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ("UPDATE accounts SET balance = balance + 1 WHERE user_id IS NOT NULL", "2 balances"),
        (
            """UPDATE entries SET amount = amount + 1 WHERE version = 3 AND amount > 0;
               UPDATE accounts SET balance = balance + 1 WHERE version = 3 AND balance > 0""",
            "does not balance",
        ),
    ],
    ids=["balances that drifted", "an entry without its counterpart"],
)
async def test_a_trial_balance_that_does_not_balance_is_a_failure(own_books, spoil, message):
    await spoiled(own_books, spoil)
    async with own_books.sessions() as session:
        reports, seen = await snapshot_of(session)
        with pytest.raises(BooksError, match=message):
            await reports.trial_balance(None, seen.taken_at, currency=None)


@pytest.mark.parametrize(
    "spoil",
    [
        "UPDATE entries SET amount = amount - 1 WHERE version = 3 AND amount < 0",
        """DELETE FROM transfers WHERE id IN (SELECT transfer_id FROM entries WHERE version = 2);
           DELETE FROM entries WHERE version = 2;
           UPDATE transfers SET posted_at = '2026-11-02';
           UPDATE entries SET posted_at = '2026-11-02'""",
        "UPDATE transfers SET amount = amount + 1",
    ],
    ids=[
        "an entry of another amount",
        "a transfer missing with its entries",
        "a transfer of another amount",
    ],
)
async def test_no_volume_is_made_of_days_that_the_entries_do_not_prove(own_books, spoil):
    await spoiled(own_books, spoil)
    days = [datetime(2026, 10, 31, tzinfo=UTC) + timedelta(days=day) for day in range(5)]
    async with own_books.sessions() as session:
        reports, _ = await snapshot_of(session)
        with pytest.raises(BooksError, match="world:EUR: its entries between versions"):
            await reports.transfer_volume(days, currency=None)


async def spoiled(books, statements):
    """Three deposits, and a ledger changed behind its triggers' backs."""
    world = await books.world("EUR")
    for day in (1, 2, 3):
        at = datetime(2026, 11, day, tzinfo=UTC)
        await books.post(at, world, books.accounts["EUR"]["ada"], 1_000)
    async with books.sessions() as session, session.begin():
        await session.execute(text("SET LOCAL session_replication_role = replica"))
        for statement in statements.split(";"):
            await session.execute(text(statement))


# What is posted before a period's end and committed after the snapshot must not fall between two
# reports.


@pytest.fixture
async def slow(own_books):
    """A transfer that has been posted, in a transaction that does not end yet."""
    world = await own_books.world("EUR")
    async with own_books.sessions() as session:
        verdict = await session.scalar(
            text("SELECT verdict FROM post_transfer(:id, :world, :to, 700, 'EUR')"),
            {"id": uuid.uuid4(), "world": world, "to": own_books.accounts["EUR"]["ada"]},
        )
        assert verdict == "posted"
        yield session


async def test_a_report_waits_for_a_transaction_that_posted_before_the_end(own_books, slow):
    async with own_books.sessions() as session:
        reports, seen = await snapshot_of(session)
        end = seen.taken_at
        assert seen.settled is False

    await slow.commit()

    async with own_books.sessions() as session:
        reports, seen = await snapshot_of(session, end)
        assert seen.settled is True
        statement = await reports.statement(own_books.accounts["EUR"]["ada"], None, end)
        assert statement.closing == 700


async def test_what_commits_while_it_is_waited_for_is_in_the_report(own_books, slow, monkeypatch):
    """The snapshot is younger than the look that found nobody posting."""

    async def commit_meanwhile(delay):
        await slow.commit()

    async with own_books.sessions() as session:
        end = await Store(session).reports.time()
    monkeypatch.setattr(asyncio, "sleep", commit_meanwhile)
    async with own_books.sessions() as session:
        reports, seen = await snapshot_of(session, end)
        assert seen.settled is True
        statement = await reports.statement(own_books.accounts["EUR"]["ada"], None, end)
    assert statement.closing == 700


async def test_no_transfer_falls_between_two_reports_under_load(own_books):
    """Slow commits all the time; what a settled report said of a moment stays true for ever."""
    ada, bob = own_books.accounts["EUR"].values()
    world = await own_books.world("EUR")
    luck = random.Random(11)
    stop = asyncio.Event()

    async def transfers():
        while not stop.is_set():
            async with own_books.sessions() as session:
                await session.execute(
                    text("SELECT verdict FROM post_transfer(:id, :world, :to, 1, 'EUR')"),
                    {"id": uuid.uuid4(), "world": world, "to": luck.choice((ada, bob))},
                )
                await asyncio.sleep(luck.uniform(0, 0.02))
                await session.commit()

    said = []
    async with asyncio.TaskGroup() as tasks:
        for _ in range(5):
            tasks.create_task(transfers())
        while len(said) < 40:
            async with own_books.sessions() as session:
                end = await Store(session).reports.time()
            while True:
                async with own_books.sessions() as session:
                    reports, seen = await snapshot_of(session, end)
                    if seen.settled:
                        said.append((end, (await reports.statement(world, None, end)).lines))
                        break
        stop.set()

    times = [row["posted_at"] for row in await own_books.rows() if row["account_id"] == world]
    assert said == [(end, sum(time < end for time in times)) for end, _ in said]


async def test_a_transaction_that_began_after_the_end_is_not_waited_for(own_books):
    async with own_books.sessions() as session:
        end = await Store(session).reports.time()
    world = await own_books.world("EUR")
    async with own_books.sessions() as late:
        await late.execute(
            text("SELECT verdict FROM post_transfer(:id, :world, :to, 700, 'EUR')"),
            {"id": uuid.uuid4(), "world": world, "to": own_books.accounts["EUR"]["ada"]},
        )
        async with own_books.sessions() as session:
            _, seen = await snapshot_of(session, end)
            assert seen.settled is True


async def test_a_long_transaction_that_touches_no_account_is_not_waited_for(own_books):
    async with own_books.sessions() as other:
        await other.execute(text("SELECT pg_current_xact_id()"))
        async with own_books.sessions() as session:
            _, seen = await snapshot_of(session)
            assert seen.settled is True


async def test_a_period_that_has_not_ended_is_not_settled(sessions):
    async with sessions() as session:
        now = await Store(session).reports.time()
        _, seen = await snapshot_of(session, now + timedelta(minutes=1))
        assert seen.settled is False


async def test_what_is_committed_during_a_report_is_not_in_it(own_books):
    account = own_books.accounts["EUR"]["ada"]
    far = datetime(2100, 1, 1, tzinfo=UTC)
    async with own_books.sessions() as session:
        reports, _ = await snapshot_of(session)
        await own_books.post(datetime.now(UTC), await own_books.world("EUR"), account, 5)
        assert (await reports.statement(account, None, far)).closing == 0
        balance = await reports.trial_balance(None, far, currency=None)
        assert balance.lines == 0


async def test_a_snapshot_is_repeatable_and_read_only_whatever_the_session_read_before(sessions):
    async with sessions() as session:
        await session.execute(text("SELECT 1"))
        await snapshot_of(session)
        settings = "SELECT current_setting('transaction_isolation'), current_setting('{}')"
        row = (await session.execute(text(settings.format("transaction_read_only")))).one()
    assert tuple(row) == ("repeatable read", "on")


async def test_a_report_may_take_longer_than_a_jobs_transaction(database_url, monkeypatch):
    monkeypatch.setattr(db.engine, "TRANSACTION_TIMEOUT_MS", 400)
    monkeypatch.setattr(db.engine, "STATEMENT_TIMEOUT_MS", 300)
    engine = create_engine(database_url, pool_size=1, application_name="teller-tests")
    async with create_sessions(engine)() as session:
        await snapshot_of(session)
        await session.execute(text("SELECT pg_sleep(0.6)"))
    async with create_sessions(engine)() as session:
        limits = "SELECT current_setting('statement_timeout'), current_setting('TimeZone')"
        assert tuple((await session.execute(text(limits))).one()) == ("300ms", "UTC")
    await engine.dispose()


async def test_copy_outside_a_snapshot_is_refused(books, sessions):
    async with sessions() as session:
        reports, seen = await snapshot_of(session)
        balance = await reports.trial_balance(None, seen.taken_at, currency=None)
        await reports.release()
        with pytest.raises(AssertionError, match="take_snapshot"):
            await copied(lambda sink: reports.copy_trial_balance(balance, sink, guarded=True))


async def test_a_zone_that_only_python_knows_is_an_answer(sessions):
    async with sessions() as session:
        reports = Store(session).reports
        seen = await reports.take_snapshot(end=LONG_AGO, timezone="Mars/Olympus", limit=LIMIT)
    assert seen == "unknown_timezone"


async def test_cells_that_could_be_formulas_are_guarded_and_numbers_are_not(own_books):
    names = ["=1+1", "+1", "-1", "@SUM", "＝1", "plain", "a=b", "|x", "%x"]
    more = Books(own_books.sessions)
    await more.open(names, ("EUR",))
    world = await own_books.world("EUR")
    for name in names:
        await more.post(datetime(2026, 11, 1, tzinfo=UTC), world, more.accounts["EUR"][name], 3)
    async with own_books.sessions() as session:
        reports, seen = await snapshot_of(session)
        balance = await reports.trial_balance(None, seen.taken_at, currency=None)
        rows = await copied(lambda sink: reports.copy_trial_balance(balance, sink, guarded=True))
        plain = await copied(lambda sink: reports.copy_trial_balance(balance, sink, guarded=False))

    holders = {row[3] for row in plain} - {""}
    assert holders == set(names)
    assert {row[3] for row in rows} - {""} == {guarded(name) for name in names}
    assert {"'=1+1", "'＝1", "plain", "a=b"} <= {row[3] for row in rows}
    assert "-0.27" in {row[10] for row in rows}


async def test_a_transfer_at_a_periods_edge_is_in_exactly_one_of_two_periods(own_books):
    account = own_books.accounts["EUR"]["ada"]
    edge = datetime(2026, 11, 2, tzinfo=UTC)
    world = await own_books.world("EUR")
    for at in (edge - datetime.resolution, edge, edge + datetime.resolution):
        await own_books.post(at, world, account, 1)
    async with own_books.sessions() as session:
        reports, _ = await snapshot_of(session)
        before = await reports.statement(account, None, edge)
        after = await reports.statement(account, edge, edge + timedelta(days=1))
    assert (before.lines, after.lines) == (1, 2)
    assert after.opening == before.closing


async def test_post_at_is_post_transfer_but_for_its_clock(own_books):
    async with own_books.sessions() as session, session.begin():
        world = await Store(session).ledger.world_account("EUR")
        one = own_books.accounts["EUR"]["ada"]
        assert await post_at(session, LONG_AGO, world, one, 5, "EUR") == "posted"
        assert await post_at(session, LONG_AGO, one, one, 5, "EUR") == "same_account"
