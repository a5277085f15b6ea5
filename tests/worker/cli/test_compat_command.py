"""`python -m worker compat`: against an older contract, and against what is queued."""

import asyncio
import json
import uuid

import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from jobs import registry
from worker.__main__ import app
from worker.cli.contract.schema import contract_of, contract_text
from worker.errors import TellerError


@pytest.fixture
def run(letters, database_url, redis_url, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("REDIS_URL", redis_url)

    async def invoke(*arguments):
        given = [str(argument) for argument in arguments]
        return await asyncio.to_thread(CliRunner().invoke, app, ["compat", *given])

    return invoke


@pytest.fixture
def older(letters, tmp_path):
    """Write a contract that differs from this code's by what a test does to it."""

    def write(change):
        contract = json.loads(contract_text(contract_of(registry())))
        change(contract)
        path = tmp_path / "older.json"
        path.write_text(json.dumps(contract))
        return path

    return write


@pytest.fixture
async def queued(sessions):
    """Store a job as an older version of this code might have."""
    async with sessions() as session, session.begin():
        await session.execute(text("DELETE FROM jobs"))

    async def put(kind, payload):
        async with sessions() as session, session.begin():
            await session.execute(
                text(
                    "INSERT INTO jobs (id, kind, payload) VALUES (:id, :kind, "
                    "CAST(:payload AS jsonb))"
                ),
                {"id": uuid.uuid4(), "kind": kind, "payload": json.dumps(payload)},
            )

    return put


async def test_the_same_contract_breaks_nothing(run, older):
    answer = await run("--against", older(lambda _: None))

    assert (answer.exit_code, answer.stdout) == (0, "nothing breaks\n")


async def test_what_an_older_contract_took_and_this_code_refuses_fails(run, older):
    def had_more(contract):
        contract["send_letter"]["payload"]["properties"]["memo"] = {"type": "string"}
        contract["send_postcard"] = contract["send_letter"]

    answer = await run("--against", older(had_more))

    assert answer.exit_code == 1
    assert answer.stdout == "2 breaking changes\n"
    assert "send_letter.payload.memo: the field is gone" in answer.stderr
    assert "send_postcard: the kind is gone" in answer.stderr


async def test_what_is_queued_is_read_with_this_code(run, queued):
    good = {"address": "12 High Street"}
    await queued("send_letter", good)
    fine = await run("--live")
    for _ in range(3):
        await queued("send_letter", {**good, "memo": "sesame"})
    await queued("send_postcard", {})
    broken = await run("--live")

    assert (fine.exit_code, fine.stdout) == (0, "nothing breaks\n")
    assert (broken.exit_code, broken.stdout) == (1, "2 breaking changes\n")
    assert "3 queued: invalid payload for send_letter: memo: Extra inputs" in broken.stderr
    assert "1 queued: unknown job kind 'send_postcard'" in broken.stderr
    assert "sesame" not in broken.stderr


@pytest.mark.parametrize("content", ["{", "[]", '{"a": 1}', '{"a": {"payload": {}}}'])
async def test_what_is_no_contract_is_said(run, tmp_path, content):
    (tmp_path / "c.json").write_text(content)
    answer = await run("--against", tmp_path / "c.json")

    assert isinstance(answer.exception, TellerError)
    assert "c.json" in str(answer.exception)


async def test_nothing_to_compare_with_is_said(run):
    assert "--against" in str((await run()).exception)
