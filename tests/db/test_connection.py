"""What the next user of a connection finds: limits, leftovers, silence, and what it may write."""

import asyncio
from datetime import timedelta

import asyncpg
import pytest
from sqlalchemy import make_url, text

import db.audit
import db.connection
import db.engine
from db.audit import Audit, Rule, selected_by
from db.engine import ONE_MOMENT, create_engine, create_sessions
from db.errors import sqlstate_of
from db.statements import NotYoursError, clean
from db.transaction import (
    JobTransaction,
    TransactionEndedError,
    driver_of,
    snapshot_session,
    terms_of,
)
from jobs import Job, Payload, Policy
from tests.db.kit import PID, SilentProxy, left_on
from worker.app.schema import check_timeouts
from worker.errors import StartupError

DEADLINE_S = 30
SELECT_ONE = clean("SELECT 1 /* known to be clean */")
FUNCTIONS = """
    CREATE OR REPLACE FUNCTION leave_setting() RETURNS text LANGUAGE sql AS
      $$ SELECT set_config('work_mem', '1234kB', false) $$;
    CREATE OR REPLACE FUNCTION leave_lock() RETURNS void LANGUAGE plpgsql AS
      $$ BEGIN PERFORM pg_advisory_lock(43); END $$;
    CREATE OR REPLACE FUNCTION leave_prepared() RETURNS void LANGUAGE plpgsql AS
      $$ BEGIN EXECUTE 'PREPARE left_over AS SELECT 1'; END $$;
    CREATE OR REPLACE FUNCTION leave_by_trigger() RETURNS trigger LANGUAGE plpgsql AS
      $$ BEGIN PERFORM set_config('search_path', 'elsewhere', false); RETURN new; END $$;
    CREATE TABLE IF NOT EXISTS traps (trap int);
    CREATE OR REPLACE TRIGGER trap BEFORE INSERT ON traps
      FOR EACH ROW EXECUTE FUNCTION leave_by_trigger();
    CREATE TABLE IF NOT EXISTS notes (text text NOT NULL);
    DO $$ BEGIN CREATE ROLE clerk; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
"""

SLOW = "SELECT x FROM (SELECT pg_sleep(0.9)::text AS x) AS s WHERE x = 'never'"

RESETTABLE = [
    "SET search_path = reporting, pg_catalog",
    "SET statement_timeout = '1h'",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    "SET default_transaction_read_only = on",
    "SET TIME ZONE 'Asia/Kathmandu'",
    "SELECT set_config('work_mem', '1234kB', false)",
    "SET ROLE clerk",
    "SET SESSION AUTHORIZATION clerk",
    "SELECT pg_advisory_lock(42)",
    "SELECT pg_advisory_lock_shared(42)",
    "LISTEN rumours",
    "CREATE TEMPORARY TABLE scratch (x int)",
    "CREATE TEMPORARY TABLE accounts (x int)",
    "DECLARE held CURSOR WITH HOLD FOR SELECT generate_series(1, 10)",
    "SELECT leave_setting()",
    "SELECT leave_lock()",
    "SELECT leave_prepared()",
    "INSERT INTO traps VALUES (1)",
    "DO $$ BEGIN PERFORM pg_advisory_lock(44); END $$",
]
REPLACED = [
    "PREPARE left_over AS SELECT 1",
    "DEALLOCATE ALL",
    "DISCARD PLANS",
]


@pytest.fixture
async def small(database_url):
    """Return an engine with one connection, so that whoever comes next gets it."""
    engine = create_engine(database_url, pool_size=1, application_name="teller-tests")
    by_itself = await asyncpg.connect(database_url)
    await by_itself.execute(FUNCTIONS)
    await by_itself.close()
    await pid_of(engine)  # so that it is connected
    yield engine
    await engine.dispose()


@pytest.fixture
def sent(monkeypatch):
    """Return the list of what asyncpg is given to send as text, without arguments."""
    texts = []
    execute = asyncpg.Connection.execute

    async def record(self, query, *args, **options):
        texts.append(query)
        return await execute(self, query, *args, **options)

    monkeypatch.setattr(asyncpg.Connection, "execute", record)
    return texts


def _seconds(seconds):
    return timedelta(seconds=seconds)


async def failure_of(work):
    """Return the exception that some work ends with."""
    try:
        await work
    except Exception as error:  # noqa: BLE001 - which one it is, is for the test to say
        return error
    raise AssertionError("it was to fail")


async def pid_of(engine):
    async with JobTransaction(engine) as transaction:
        driver = await driver_of(transaction.session)
        return driver.get_server_pid()


async def left_after(engine):
    async with create_sessions(engine)() as session:
        return await left_on(session)


# What a job leaves.


@pytest.mark.parametrize("ends", ["by COMMIT", "by ROLLBACK"])
@pytest.mark.parametrize("sql", RESETTABLE)
async def test_what_a_job_leaves_is_gone_before_the_next_one_and_the_connection_stays(
    small, sql, ends
):
    before = await pid_of(small)
    async with JobTransaction(small) as transaction:
        await transaction.session.execute(text(sql))
        await transaction.conclude()
        if ends == "by COMMIT":
            await transaction.commit()

    assert await left_after(small) == []
    assert await pid_of(small) == before


@pytest.mark.parametrize("how", ["session", "execute", "fetch", "prepared again"])
async def test_it_is_gone_whichever_way_it_was_sent(small, how):
    lock = "SELECT pg_advisory_lock(42)"
    for _ in range(2):  # the second time the drivers have it prepared
        async with JobTransaction(small) as transaction:
            driver = await driver_of(transaction.session)
            match how:
                case "session":
                    await transaction.session.execute(text(lock))
                case "execute":
                    await driver.execute(lock)
                case "fetch":
                    await driver.fetch(lock)
                case "prepared again":
                    await (await driver.prepare(lock)).fetch()
            await transaction.commit()

        assert await left_after(small) == []


@pytest.mark.parametrize("sql", REPLACED)
async def test_what_no_reset_undoes_costs_the_connection(small, sql):
    before = await pid_of(small)
    async with JobTransaction(small) as transaction:
        await transaction.session.execute(text(sql))
        await transaction.commit()

    assert await left_after(small) == []
    assert await pid_of(small) != before


async def test_a_listener_and_a_codec_of_the_drivers_own_cost_the_connection(small):
    async def listen(driver):
        await driver.add_listener("rumours", print)

    async def decode(driver):
        await driver.set_type_codec(
            "bool", schema="pg_catalog", encoder=str, decoder=str, format="text"
        )

    for leave in (listen, decode):
        before = await pid_of(small)
        async with JobTransaction(small) as transaction:
            await leave(await driver_of(transaction.session))
            await transaction.commit()

        assert await pid_of(small) != before
        assert await left_after(small) == []


async def test_a_snapshot_job_leaves_nothing_either(small):
    async with snapshot_session(small, _seconds(1)) as session:
        await session.connection(execution_options=ONE_MOMENT)
        await session.execute(text("SELECT pg_advisory_lock(42)"))
        await session.execute(text("SET work_mem = '1234kB'"))

    assert await left_after(small) == []


@pytest.mark.parametrize("ends", ["COMMIT", "COMMIT;", "ROLLBACK;", "SELECT 1; COMMIT"])
async def test_a_snapshot_job_cannot_end_its_moment_by_text(small, ends):
    async with snapshot_session(small, _seconds(1)) as session:
        driver = await driver_of(session)
        with pytest.raises(NotYoursError):
            await driver.execute(ends)
        with pytest.raises(NotYoursError):
            await session.commit()
        await session.rollback()
        await session.execute(text("SELECT 1"))


async def test_a_moment_that_was_ended_all_the_same_is_told_loudly(small):
    """Past everything that judges texts: as a function of the driver that we do not know would."""

    async def end_and_write(then):
        async with snapshot_session(small, _seconds(1)) as session:
            driver = await driver_of(session)
            await asyncpg.Connection.execute(driver, "COMMIT")
            then()

    def fail():
        raise ZeroDivisionError

    for then in (fail, lambda: None):
        assert isinstance(await failure_of(end_and_write(then)), TransactionEndedError)
    async with snapshot_session(small, _seconds(1)) as session:
        await session.execute(text("SELECT 1"))
        await session.rollback()
        await session.begin()


async def test_a_snapshot_job_may_look_at_nothing(small):
    async with snapshot_session(small, _seconds(1)) as session:
        await session.connection(execution_options=ONE_MOMENT)


async def test_no_transaction_of_a_snapshot_job_can_write(small):
    async with snapshot_session(small, _seconds(1)) as session:
        for _ in range(2):
            error = await failure_of(session.execute(text("INSERT INTO notes VALUES ('kept')")))
            assert sqlstate_of(error) == "25006"
            await session.rollback()


async def test_a_routine_with_a_body_in_sql_can_be_made_by_a_job(small):
    async with JobTransaction(small) as transaction:
        await transaction.session.execute(
            text("CREATE FUNCTION two() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END")
        )
        assert await transaction.session.scalar(text("SELECT two()")) == 2
        await transaction.conclude()


async def test_an_error_in_the_job_leaves_nothing_either(small):
    async def lock_and_fail():
        async with JobTransaction(small) as transaction:
            await transaction.session.execute(text("SELECT pg_advisory_lock(42)"))
            raise ZeroDivisionError

    assert isinstance(await failure_of(lock_and_fail()), ZeroDivisionError)
    assert await left_after(small) == []


async def test_a_lock_of_a_job_is_free_as_soon_as_the_job_has_ended(small, engine):
    async with JobTransaction(small) as transaction:
        await transaction.session.execute(text("SELECT pg_advisory_lock(42)"))
        await transaction.commit()

    async with engine.connect() as other:
        held = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 42")
        assert await other.scalar(held) == 0


async def test_known_clean_statements_cost_a_job_no_word_more(small, sent):
    async with JobTransaction(small, _seconds(10)) as transaction:
        driver = await driver_of(transaction.session)
        assert await driver.fetchval(SELECT_ONE) == 1
        await transaction.conclude()
        await transaction.commit()

    assert sent == ["BEGIN", "COMMIT"]


async def test_a_reset_costs_no_message(small, sent):
    async with JobTransaction(small) as transaction:
        await transaction.session.execute(text("SELECT 'not known to be clean'"))
        await transaction.conclude()
        await transaction.commit()

    # A server that does not report its search_path may have been given another one meanwhile.
    reports = transaction._driver._search_path is not None
    between = [] if reports else ["SET LOCAL SESSION AUTHORIZATION DEFAULT"]
    said = [message.partition(";")[0].strip() for message in sent]
    assert said == ["BEGIN", *between, "COMMIT"]


async def test_the_settings_given_at_connect_are_back_after_a_reset(small):
    async with JobTransaction(small) as transaction:
        await transaction.session.execute(text("SET lock_timeout = 0"))
        await transaction.session.execute(text("SET application_name = 'somebody else'"))
        await transaction.commit()

    async with create_sessions(small)() as session:
        assert await session.scalar(text("SHOW lock_timeout")) == "2s"
        assert await session.scalar(text("SHOW application_name")) == "teller-tests"
        assert await session.scalar(text("SHOW jit")) == "off"


@pytest.mark.parametrize(
    "sql",
    ["SET LOCAL search_path = elsewhere", "SET LOCAL ROLE clerk", "INSERT INTO traps VALUES (1)"],
)
async def test_the_worker_concludes_a_job_as_itself(small, sql):
    async with JobTransaction(small) as transaction:
        await transaction.session.execute(text(sql))
        await transaction.conclude()
        await transaction.session.execute(text("INSERT INTO notes VALUES ('found and allowed')"))
        await transaction.commit()


# How long a job may take.


@pytest.fixture
async def impatient(database_url, monkeypatch):
    """Return an engine whose limits are all below a second."""
    monkeypatch.setattr(db.engine, "STATEMENT_TIMEOUT_MS", 300)
    monkeypatch.setattr(db.engine, "IDLE_IN_TRANSACTION_TIMEOUT_MS", 300)
    monkeypatch.setattr(db.engine, "TRANSACTION_TIMEOUT_MS", 500)
    monkeypatch.setattr(db.engine, "COMMAND_TIMEOUT_S", 0.6)
    engine = create_engine(database_url, pool_size=1, application_name="teller-tests")
    yield engine
    await engine.dispose()


async def test_the_limits_of_server_and_driver_follow_the_jobs_timeout(impatient):
    async with JobTransaction(impatient, _seconds(3)) as transaction:
        await transaction.session.execute(text("SELECT pg_sleep(0.9)"))
        await asyncio.sleep(0.9)
        await (await driver_of(transaction.session)).execute("SELECT pg_sleep(0.9)")
        await transaction.restart()
        await transaction.session.execute(text("SELECT pg_sleep(0.9)"))
        await transaction.conclude()
        await transaction.commit()


async def test_those_of_a_snapshot_job_too_in_each_of_its_transactions(impatient):
    async with snapshot_session(impatient, _seconds(3)) as session:
        for _ in range(2):
            await session.connection(execution_options=ONE_MOMENT)
            await session.execute(text("SELECT pg_sleep(0.9)"))
            await asyncio.sleep(0.4)
            await session.execute(text("SELECT 1"))
            await session.rollback()


async def test_the_next_user_of_the_connection_has_the_usual_limits(impatient):
    async with JobTransaction(impatient, _seconds(3)) as transaction:
        await transaction.commit()
    async with snapshot_session(impatient, _seconds(3)) as session:
        await session.execute(text("SELECT 1"))

    async with create_sessions(impatient)() as session:
        error = await failure_of(session.execute(text("SELECT pg_sleep(0.9)")))
    assert sqlstate_of(error) == "57014"


def test_a_usual_job_has_nothing_to_set_and_each_longer_one_what_it_needs():
    assert terms_of(None).limits == terms_of(_seconds(10)).limits == ""
    assert terms_of(_seconds(20)).limits == (
        "; SET LOCAL statement_timeout = 25000"
        "; SET LOCAL idle_in_transaction_session_timeout = 25000"
    )
    assert terms_of(_seconds(20)).transaction_limit == ""
    assert terms_of(_seconds(60)).transaction_limit == (
        "; SET LOCAL transaction_timeout = 0; SET LOCAL transaction_timeout = 65000"
    )


async def test_the_audits_own_limits_hold_for_driver_and_server(impatient, monkeypatch):
    monkeypatch.setattr(db.audit, "AUDIT_TIMEOUT", _seconds(5))
    slow = Rule("slow", "as on big books", selected_by(SLOW))
    async with create_sessions(impatient)() as session:
        assert (await Audit(session, [slow]).run_in_snapshot()).differences == 0


@pytest.mark.parametrize(
    ("timeout", "fault"),
    [
        (_seconds(0), "longer than nothing"),
        (_seconds(-1), "longer than nothing"),
        (timedelta(days=25), "24 days at most"),
        (timedelta(days=24), None),
        (timedelta(milliseconds=1), None),
    ],
)
def test_a_timeout_that_no_limit_can_follow_is_an_error_at_start_with_the_jobs_name(timeout, fault):
    async def send_letter(_ctx, _payload):
        return None

    kinds = {"send_letter": Job(Payload, send_letter, Policy(timeout=timeout))}
    if fault is None:
        check_timeouts(kinds)
        return
    with pytest.raises(StartupError, match=f"job send_letter: .*{fault}"):
        check_timeouts(kinds)


# A server that says nothing.


@pytest.fixture
async def mute(database_url):
    """Return a proxy that can fall silent, and an engine with one connection through it."""
    proxy = SilentProxy(database_url)
    async with proxy.open() as url:
        engine = create_engine(url, pool_size=1, application_name="teller-tests")
        yield proxy, engine
        proxy.speak()
        await engine.dispose()


async def test_a_job_that_ran_out_of_time_under_a_silent_server_knows_it(mute):
    proxy, engine = mute
    transaction = JobTransaction(engine)

    async def run():
        async with transaction, asyncio.timeout(0.2):
            proxy.fall_silent()
            await transaction.session.execute(text("SELECT 1"))

    assert isinstance(await failure_of(run()), TimeoutError)
    assert transaction.is_silent
    assert engine.pool.checkedout() == 0


@pytest.mark.parametrize("use", ["transaction", "session"])
async def test_giving_up_waits_for_one_answer_and_no_second(mute, monkeypatch, use):
    proxy, engine = mute
    unanswered = []

    def note(of, method):
        whole = getattr(of, method)

        async def noted(*args, **options):
            try:
                return await whole(*args, **options)
            except TimeoutError:
                unanswered.append(method)
                raise

        monkeypatch.setattr(of, method, noted)

    note(asyncpg.Connection, "execute")
    note(asyncpg.Connection, "close")
    monkeypatch.setattr(db.connection, "ROLLBACK_TIMEOUT_S", 0.3)
    monkeypatch.setattr(db.connection, "CLOSE_TIMEOUT_S", 0.3)
    sleeping = asyncio.Event()
    task = asyncio.ensure_future(USES[use](engine, sleeping.set))
    async with asyncio.timeout(DEADLINE_S):
        await sleeping.wait()
        proxy.fall_silent()
        task.cancel()
        await asyncio.wait({task})

    assert len(unanswered) == 1
    assert engine.pool.checkedout() == 0
    proxy.speak()
    assert await pid_of(engine)


async def _use_transaction(engine, at_work=lambda: None):
    async with JobTransaction(engine) as transaction:
        await _sleep_long(transaction.session, at_work)


async def _use_session(engine, at_work=lambda: None):
    async with create_sessions(engine)() as session:
        await _sleep_long(session, at_work)


async def _sleep_long(session, at_work):
    await session.execute(text("SELECT 1"))
    asyncio.get_running_loop().call_soon(at_work)  # when the statement was sent
    await session.execute(text("SELECT pg_sleep(100)"))


USES = {"transaction": _use_transaction, "session": _use_session}


async def test_a_job_that_was_cut_short_by_a_server_that_answers_is_not_called_silent(small):
    transaction = JobTransaction(small)

    async def run():
        async with transaction, asyncio.timeout(0.2):
            await transaction.session.execute(text("SELECT pg_sleep(10)"))

    assert isinstance(await failure_of(run()), TimeoutError)
    assert not transaction.is_silent


async def test_a_connection_that_went_silent_while_pooled_is_given_up_at_begin(mute, monkeypatch):
    monkeypatch.setattr(db.connection, "BEGIN_TIMEOUT_S", 0.3)
    monkeypatch.setattr(db.connection, "ROLLBACK_TIMEOUT_S", 0.3)
    proxy, engine = mute
    await pid_of(engine)
    proxy.fall_silent()

    for use in USES.values():
        async with asyncio.timeout(DEADLINE_S):
            await failure_of(use(engine))
        proxy.speak()
        await pid_of(engine)
        proxy.fall_silent()


async def test_an_engine_is_disposed_of_although_the_server_is_silent(mute):
    proxy, engine = mute
    await pid_of(engine)
    proxy.fall_silent()

    async with asyncio.timeout(5):
        await engine.dispose()


# A server that only reads.


async def end_backends(url):
    """Have every connection to a database ended, as a failover does."""
    other = create_engine(
        make_url(url).set(database="postgres").render_as_string(hide_password=False),
        pool_size=1,
        application_name="teller-tests",
    )
    async with other.connect() as connection:
        await connection.execute(
            text("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = :d"),
            {"d": make_url(url).database},
        )
    await other.dispose()


async def set_read_only(url, value):
    elsewhere = make_url(url).set(database="postgres").render_as_string(hide_password=False)
    other = await asyncpg.connect(elsewhere)
    try:
        name = make_url(url).database
        await other.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = {value}')
    finally:
        await other.close()


async def write_in_session(engine):
    async with create_sessions(engine)() as session, session.begin():
        await session.execute(text("INSERT INTO notes VALUES ('by a session')"))


async def write_in_job(engine):
    async with JobTransaction(engine) as transaction:
        driver = await driver_of(transaction.session)
        await driver.execute("INSERT INTO notes VALUES ('by a job')")
        await transaction.commit()


async def only_read(engine):
    async with create_sessions(engine)() as session:
        await session.execute(text("SELECT 1"))


@pytest.mark.parametrize("use", [write_in_session, write_in_job, only_read])
async def test_connections_made_while_the_server_was_read_only_are_not_used_after(
    small, database_url, use
):
    await set_read_only(database_url, "on")
    try:
        await end_backends(database_url)
        for _ in range(2):
            if use is only_read:
                await use(small)
                continue
            assert sqlstate_of(await failure_of(use(small))) in {"25006", "57P01"}
    finally:
        await set_read_only(database_url, "off")

    await write_in_session(small)
    await write_in_job(small)


@pytest.mark.parametrize("use", ["session", "job"])
async def test_a_connection_that_refused_to_write_is_replaced_whatever_it_reports(small, use):
    """As behind a proxy that does not pass on what the server reports of itself."""
    before = await pid_of(small)

    async def in_session():
        async with create_sessions(small)() as session:
            await session.execute(text("SET TRANSACTION READ ONLY"))
            await session.execute(text("INSERT INTO notes VALUES ('refused')"))

    async def in_job():
        async with JobTransaction(small) as transaction:
            driver = await driver_of(transaction.session)
            await driver.execute("SET TRANSACTION READ ONLY; INSERT INTO notes VALUES ('refused')")

    error = await failure_of(in_session() if use == "session" else in_job())

    assert sqlstate_of(error) == "25006"
    assert await pid_of(small) != before


# A transaction that was ended behind the worker's back.


@pytest.mark.parametrize(
    "sql", ["COMMIT", "/* */ rollback", "SELECT 1; COMMIT AND CHAIN", "PREPARE TRANSACTION 'x'"]
)
@pytest.mark.parametrize("way", ["session", "execute", "fetch", "copy"])
async def test_transaction_control_as_text_is_refused_before_it_is_sent(small, sql, way):
    async with JobTransaction(small) as transaction:
        session = transaction.session
        driver = await driver_of(session)
        await session.execute(text("INSERT INTO notes VALUES ('half an effect')"))
        sending = {
            "session": lambda: session.execute(text(sql)),
            "execute": lambda: driver.execute(sql),
            "fetch": lambda: driver.fetch(sql),
            "copy": lambda: driver.copy_from_query(f"SELECT 1) TO STDOUT; {sql}; --", output=print),
        }

        async def send():
            await sending[way]()

        assert isinstance(await failure_of(send()), NotYoursError)
        assert driver.is_in_transaction()


async def end_behind_its_back(transaction, by="COMMIT"):
    driver = await driver_of(transaction.session)
    await driver.execute("INSERT INTO notes VALUES ('kept')")
    await asyncpg.Connection.execute(driver, by)


@pytest.mark.parametrize("by", ["COMMIT", "ROLLBACK"])
@pytest.mark.parametrize("step", ["conclude", "restart"])
async def test_a_transaction_that_was_ended_is_noticed_before_anything_else_is_written(
    small, step, by
):
    async with JobTransaction(small) as transaction:
        await end_behind_its_back(transaction, by)
        with pytest.raises(TransactionEndedError):
            await getattr(transaction, step)()


async def test_it_is_noticed_when_the_job_fails_as_well(small):
    async def run():
        async with JobTransaction(small) as transaction:
            await end_behind_its_back(transaction)
            raise ZeroDivisionError

    error = await failure_of(run())

    assert isinstance(error, TransactionEndedError)
    assert isinstance(error.__cause__, ZeroDivisionError)


async def test_a_lost_connection_is_not_taken_for_an_ended_transaction(small, engine):
    async def run():
        async with JobTransaction(small) as transaction:
            pid = await transaction.session.scalar(PID)
            async with engine.connect() as other:
                await other.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
            await transaction.session.execute(text("SELECT 1"))

    assert not isinstance(await failure_of(run()), TransactionEndedError)


async def test_a_commit_that_the_server_refuses_is_its_own_error(small):
    late = "CREATE TABLE IF NOT EXISTS late (x int UNIQUE DEFERRABLE INITIALLY DEFERRED)"
    async with small.begin() as connection:
        await connection.execute(text(late))

    async def run():
        async with JobTransaction(small) as transaction:
            await transaction.session.execute(text("INSERT INTO late VALUES (1), (1)"))
            await transaction.commit()

    assert sqlstate_of(await failure_of(run())) == "23505"
    assert await left_after(small) == []
