"""A server that does not serve is one line that says what to do, whichever command needs it."""

import asyncio
import socket
import threading
from contextlib import contextmanager

import asyncpg
import pytest
from sqlalchemy import make_url

from tests.worker.cli.commands import assert_one_sentence, run_line

AWAY = "postgresql://nobody@127.0.0.1:1/nothing"

READERS = {
    "audit": ["audit"],
    "compat": ["compat", "--live"],
    "jobs list": ["jobs", "list"],
    "jobs show": ["jobs", "show", "an-id"],
    "jobs dry run": ["jobs", "retry", "--all", "--dry-run"],
    "schedules": ["schedules"],
}
WRITERS = {
    "enqueue": ["enqueue", "purge_record", "{}"],
    "jobs cancel": ["jobs", "cancel", "--all", "--yes"],
    "jobs retry": ["jobs", "retry", "--all", "--yes"],
}
NEED_SCHEMA = READERS | WRITERS | {"enqueue file": ["enqueue", "--file", "FILE"]}
ALL = NEED_SCHEMA | {"migrate": ["migrate"]}


def each(lines):
    return pytest.mark.parametrize("line", lines.values(), ids=lines)


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    file = tmp_path / "jobs.jsonl"
    file.write_text('{"kind": "purge_record", "payload": {}}\n')

    def invoke(line, url):
        monkeypatch.setenv("DATABASE_URL", url)
        return run_line(
            [str(file) if part == "FILE" else part for part in line], capsys, monkeypatch
        )

    return invoke


def sql(url, *statements):
    async def execute():
        connection = await asyncpg.connect(url)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(execute())


def changed(url, **parts):
    return make_url(url).set(**parts).render_as_string(hide_password=False)


@contextmanager
def server_that_answers(answer):
    """Yield the URL of a server that says one thing to whoever connects."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve():
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(1024)
                    connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield f"postgresql://nobody@127.0.0.1:{listening.getsockname()[1]}/nothing"
        finally:
            listening.shutdown(socket.SHUT_RDWR)


@each(ALL)
def test_every_command_names_the_setting_of_a_database_that_is_away(line, run):
    assert_one_sentence(run(line, AWAY), "cannot reach the database: check DATABASE_URL")


@each(NEED_SCHEMA)
def test_every_command_says_at_once_that_a_database_is_not_migrated(line, run, empty_database_url):
    assert_one_sentence(run(line, empty_database_url), "run `python -m worker migrate`")


@each(ALL)
def test_every_command_says_that_there_is_no_such_database(line, run, servers):
    answer = run(line, changed(servers[0], database="never made"))

    assert_one_sentence(answer, "there is no such database: create it")


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"-ERR no\r\n", b"\0" * 64, b""]
)
@each({name: ALL[name] for name in ("audit", "enqueue", "migrate")})
def test_a_server_that_is_no_postgresql_is_told_from_one(line, answer, run):
    with server_that_answers(answer) as url:
        assert_one_sentence(run(line, url), "check")


@each(ALL)
def test_every_command_says_that_its_user_may_not(line, run, new_database_url):
    sql(
        new_database_url,
        "DROP ROLE IF EXISTS without_rights",
        "CREATE ROLE without_rights LOGIN PASSWORD 'p'",
    )
    answer = run(line, changed(new_database_url, username="without_rights", password="p"))

    assert_one_sentence(answer, "the database's user may not do that")


@each(WRITERS)
def test_a_command_that_writes_says_that_the_database_is_read_only(line, run, new_database_url):
    name = make_url(new_database_url).database
    sql(
        new_database_url,
        "INSERT INTO jobs (id, kind, payload, state) "
        "VALUES (gen_random_uuid(), 'purge_record', '{}', 'queued')",
        f'ALTER DATABASE "{name}" SET default_transaction_read_only = on',
    )

    assert_one_sentence(run(line, new_database_url), "the database is read-only")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (f"{AWAY}?channel_binding=require", "channel_binding"),
        (f"{AWAY}?schema=a&pgbouncer=true", "pgbouncer, schema"),
        (f"{AWAY}?sslmode=maybe", "sslmode"),
        ("mysql://nobody@127.0.0.1/nothing", "DATABASE_URL"),
        ("postgresql://nobody@127.0.0.1:99999/nothing", "DATABASE_URL"),
    ],
)
@each({name: ALL[name] for name in ("audit", "migrate")})
def test_a_url_that_the_driver_does_not_take_is_told_by_what_is_wrong_in_it(line, url, said, run):
    assert_one_sentence(run(line, url), said)


@pytest.mark.parametrize("parameter", ["no_such=1", "socket_timeout=soon"])
def test_a_redis_url_that_the_driver_does_not_take_is_told_too(parameter, run, monkeypatch):
    monkeypatch.setenv("REDIS_URL", f"redis://127.0.0.1:1/0?{parameter}")

    assert_one_sentence(run(["audit"], AWAY), "REDIS_URL")


def test_settings_that_are_no_text_are_told_by_the_file_s_name(run, tmp_path, monkeypatch):
    (tmp_path / ".env").write_bytes(b"TELLER_CONCURRENCY=\xff\n")
    monkeypatch.chdir(tmp_path)

    assert_one_sentence(run(["audit"], AWAY), ".env cannot be read")
