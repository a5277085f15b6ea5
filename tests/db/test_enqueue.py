"""Accepting jobs: one bad candidate spoils none of the others, and repeating changes nothing."""

import asyncio
import json
import uuid
from datetime import UTC, datetime

import pytest
from sqlalchemy import text

from db.enqueue import Candidate, accept, accept_many, live_payloads

LETTER = {"address": "12 High Street", "pages": 1}


def a_candidate(key=None, pages=1, **changes):
    payload = json.dumps({**LETTER, "pages": pages})
    return Candidate(**{"kind": "send_letter", "payload_json": payload, "key": key} | changes)


@pytest.fixture
async def session(sessions):
    async with sessions() as made, made.begin():
        yield made


async def test_an_accepted_job_is_queued_with_what_was_asked(session):
    run_at = datetime(2030, 1, 1, tzinfo=UTC)
    verdict = await accept(session, a_candidate("asked", run_at=run_at))
    row = (
        await session.execute(text("SELECT * FROM jobs WHERE id = :id"), {"id": verdict.id})
    ).one()

    assert verdict.created
    assert (row.kind, row.key, row.state, row.run_at) == (
        "send_letter",
        "asked",
        "queued",
        run_at,
    )
    assert row.payload == LETTER


@pytest.mark.parametrize(
    ("candidate", "fault"),
    [
        (a_candidate(kind="nope"), "TL001"),
        (a_candidate(pages=0), "TL002"),
        (a_candidate(payload_json='{"a": "\\u0000"}'), "TL002"),
        (a_candidate(payload_json="{"), "TL002"),
        (a_candidate(payload_json="[1e999999]"), "TL002"),
        (a_candidate(payload_json='"\\ud800"'), "TL002"),
        (a_candidate(payload_json=json.dumps({**LETTER, "x": "y" * 70_000})), "TL002"),
        (a_candidate(payload_json="[" * 900 + "]" * 900), "TL002"),
        (a_candidate(key=""), "TL004"),
        (a_candidate(key="k" * 201), "TL004"),
        (a_candidate(run_at=datetime(1, 1, 1, tzinfo=UTC)), "TL005"),
    ],
)
async def test_a_refusal_is_a_value_that_says_why(session, candidate, fault):
    before, verdict, after = await accept_many(
        session, [a_candidate(), candidate, a_candidate(uuid.uuid4().hex)]
    )

    assert (verdict.id, verdict.fault) == (None, fault)
    assert verdict.message
    assert verdict.hint
    assert before.created
    assert after.created


async def test_one_key_is_one_job_also_inside_one_statement(session):
    first, again, other = await accept_many(
        session, [a_candidate("k"), a_candidate("k"), a_candidate("k", pages=2)]
    )

    assert (first.created, again.created) == (True, False)
    assert first.id == again.id
    assert other.fault == "TL003"
    assert str(first.id) in (other.message or "")


async def test_the_same_candidates_at_once_make_each_job_once(sessions):
    candidates = [a_candidate(f"once-{n}") for n in range(50)]

    async def take():
        async with sessions() as session, session.begin():
            return await accept_many(session, candidates)

    answers = await asyncio.gather(*(take() for _ in range(8)))

    assert sum(verdict.created for verdicts in answers for verdict in verdicts) == 50
    assert len({verdict.id for verdicts in answers for verdict in verdicts}) == 50


async def test_live_payloads_are_the_queued_ones(sessions):
    async with sessions() as session, session.begin():
        made = await accept_many(session, [a_candidate(), a_candidate()])
        await session.execute(text("SELECT cancel_job(:id)"), {"id": made[0].id})
    async with sessions() as session:
        found = {job.id: job async for job in live_payloads(session)}

    assert made[1].id in found
    assert made[0].id not in found
    assert found[made[1].id].payload == LETTER
