"""What a client reads of a job's end: results of other versions, and ends that look like others.

`jobs._client.answers`.
"""

import asyncio
import json
from uuid import UUID, uuid4

import pytest
from pydantic import ValidationError

from jobs import Cancel, Client, JobDeadError, KeyConflictError, Rejected
from jobs._client.answers import End, answer_of, end_in_redis
from jobs._wire import completed_answer, read_answer, rejected_answer
from tests.letters import LetterSent, Repeated, RepeatValue
from tests.worker.running import running_worker

JOB = UUID(int=1)


def stored(*, success, answer, kind="send_letter"):
    """Return a result as a worker stores it in Redis."""
    return json.dumps({"f": kind, "a": [], "k": {}, "s": success, "r": answer})


def read(**result):
    end = end_in_redis(stored(**result))
    assert end is not None
    return answer_of(JOB, end)


def test_an_older_client_takes_a_result_with_fields_that_it_does_not_know(letters):
    letter = str(uuid4())
    answer = read(success=True, answer={"letter_id": letter, "stamps": 2, "by": {"van": 1}})

    assert answer == LetterSent(letter_id=UUID(letter))


def test_a_result_is_typed_and_a_wrong_one_is_said(letters):
    with pytest.raises(ValidationError, match="letter_id"):
        read(success=True, answer={"letter_id": "none"})


def test_a_result_is_closed_where_it_is_made():
    with pytest.raises(ValidationError, match="stamps"):
        LetterSent(letter_id=JOB, stamps=2)


@pytest.mark.parametrize(
    "answer", [{"rejected": 5}, {"rejected": {"code": 5}}, {"rejected": None}, {"rejected": {}}]
)
def test_what_has_no_code_is_no_rejection(answer):
    assert read(success=True, answer=answer, kind="foreign") == answer


def test_each_end_is_what_the_worker_says_it_is():
    said = {"error": "JobCancelledError", "message": "enough"}

    assert read(success=True, answer={"rejected": {"code": "no"}}) == Rejected("no")
    assert read(success=False, answer=said) == Cancel("enough")
    with pytest.raises(JobDeadError):
        read(success=False, answer={"error": "JobDeadError", "message": ""})
    with pytest.raises(KeyConflictError):
        read(success=False, answer={"error": "JobConflictError", "message": ""})


@pytest.mark.parametrize("body", [b"\x80\x04N.", b"[]", b"7", b"\xff"])
def test_what_is_no_result_in_json_is_no_end(body):
    assert end_in_redis(body) is None


async def test_a_result_that_looks_like_a_rejection_is_a_result(
    letters, redis, redis_url, database_url
):
    values = [{"code": "no"}, {"code": "no", "message": "never"}, 1, None, {"rejected": {}}]
    async with running_worker(database_url, redis_url), Client(redis) as client:
        jobs = await client.enqueue_many([RepeatValue(value=value) for value in values])
        answers = await asyncio.gather(*(job.result(timeout=30) for job in jobs))
        states = await asyncio.gather(*(job.status() for job in jobs))

    assert answers == [Repeated(rejected=value) for value in values]
    assert states == ["completed"] * len(values)


def test_a_conflict_is_dead_to_its_sender():
    assert End("conflict", "send_letter", None).status == "dead"


@pytest.mark.parametrize(
    "result",
    [
        {"rejected": {"code": "no"}},
        {"completed": {"rejected": {"code": "no", "message": ""}}},
        {"completed": {"completed": {"rejected": {"code": "no"}}}},
        {"completed": True},
        {"rejected": {"code": "no", "by": "x"}},
        {},
        None,
    ],
)
def test_any_result_is_read_as_it_was_written(result):
    assert read_answer(completed_answer(result)) == (False, result)


def test_a_rejection_is_read_as_one():
    rejection = {"code": "no", "message": "never"}

    assert read_answer(rejected_answer(rejection)) == (True, rejection)


@pytest.mark.parametrize("error", ["CancelledError", "TimeoutError", "JobExecutionFailed", None])
def test_a_failure_in_arqs_own_words_is_no_end(error):
    assert end_in_redis(stored(success=False, answer={"error": error, "message": ""})) is None
