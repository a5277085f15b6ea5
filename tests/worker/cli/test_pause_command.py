"""`pause`, `resume`, and the functions behind them."""

import asyncpg
import pytest

from tests.worker.cli.commands import assert_one_sentence, run_line


@pytest.fixture
def worker(new_database_url, redis_url, capsys, monkeypatch):
    """Run `python -m worker …` on a database of this test's own."""
    monkeypatch.setenv("DATABASE_URL", new_database_url)
    monkeypatch.setenv("REDIS_URL", redis_url)
    return lambda *line: run_line(line, capsys, monkeypatch)


def test_a_pause_is_begun_shown_and_ended(worker):
    assert worker("pause").output == "nothing is paused\n"
    begun = worker("pause", "--kind", "send_letter", "--reason", "no stamps", "--by", "ada")
    assert (begun.code, begun.output) == (0, "kind send_letter is paused\n")
    assert worker("pause", "--queue", "mail", "--reason", "strike", "--for", "2h").code == 0
    kind, queue = worker("pause").output.splitlines()
    assert kind.startswith("kind send_letter since ")
    assert kind.endswith("until somebody resumes it, by ada: no stamps")
    assert queue.startswith("queue mail since ")
    ended = worker("resume", "--kind", "send_letter")
    assert (ended.code, ended.output) == (0, "kind send_letter runs again\n")
    again = worker("resume", "--kind", "send_letter")
    assert (again.code, again.output) == (1, "kind send_letter was not paused\n")
    assert worker("pause").output.splitlines() == [queue]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["pause", "--kind", "send_letter"], "--reason"),
        (["pause", "--kind", "nothing", "--reason", "x"], "no kind 'nothing'"),
        (["pause", "--kind", "a", "--queue", "b", "--reason", "x"], "one of them"),
        (["resume"], "one of them"),
        (["pause", "--queue", "a", "--reason", "x", "--for", "soon"], "--for"),
    ],
)
def test_what_cannot_be_paused_is_said(worker, line, said):
    assert_one_sentence(worker(*line), said)


async def test_sql_pauses_and_resumes(new_database_url):
    connection = await asyncpg.connect(new_database_url)
    try:
        await connection.execute("SELECT pause_kind('send_letter', 'no stamps')")
        await connection.execute(
            "SELECT pause_queue('reports', 'night', until => now() + interval '1 hour')"
        )
        rows = await connection.fetch("SELECT target, by, reason FROM pauses ORDER BY target")
        user = await connection.fetchval("SELECT session_user")
        assert [tuple(row) for row in rows] == [
            ("kind:send_letter", user, "no stamps"),
            ("queue:reports", user, "night"),
        ]
        assert await connection.fetchval("SELECT resume_kind('send_letter')")
        assert not await connection.fetchval("SELECT resume_kind('send_letter')")
        assert await connection.fetchval("SELECT resume_queue('reports')")
        with pytest.raises(asyncpg.PostgresError) as raised:
            await connection.execute("SELECT pause_kind('nothing', 'x')")
        assert raised.value.sqlstate == "TL001"
    finally:
        await connection.close()
