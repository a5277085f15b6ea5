"""`jobs.testing`: a handler runs as a worker would run it, and nothing else is needed."""

import uuid
from dataclasses import replace
from types import SimpleNamespace

import pytest

from jobs import Cancel, Continue, Rejected, registry
from jobs import testing as module
from jobs.testing import EndlessJobError, perform, perform_to_end
from tests.letters import SendLetter, a_letter, file

pytestmark = pytest.mark.usefixtures("letters")

JOB = uuid.uuid4()


class Desk:
    """A store that only remembers what was written."""

    def __init__(self):
        self.written = []
        self.session = SimpleNamespace(connection=self._connection)

    async def _connection(self):
        async def exec_driver_sql(_sql, values):
            self.written.append(values)

        return SimpleNamespace(exec_driver_sql=exec_driver_sql)


async def test_a_handler_answers_and_writes_with_what_the_test_gave_it():
    desk = Desk()

    run = await perform(a_letter(pages=3), store=desk, job_id=JOB)

    assert run.answer == file.LetterSent(letter_id=JOB)
    assert desk.written == [(JOB, a_letter().address, 3)]


async def test_a_decision_is_an_answer():
    run = await perform(a_letter(address="nowhere"), store=Desk())

    assert run.answer == Rejected("unknown_address", "nobody lives there")


async def test_what_was_not_given_is_named_when_the_handler_uses_it():
    with pytest.raises(AssertionError, match=r"ctx\.store\.session: give perform\(…, store=…\)"):
        await perform(a_letter())


async def test_what_a_handler_raises_is_raised():
    class Broken(Desk):
        async def _connection(self):
            raise OSError("no route")

    with pytest.raises(OSError, match="no route"):
        await perform(a_letter(), store=Broken())


async def test_a_payload_goes_through_json_as_on_its_way_to_a_worker(monkeypatch):
    received = []

    async def handler(_ctx, payload):
        received.append(payload)

    patch(monkeypatch, handler)
    sent = a_letter()

    await perform(sent)

    assert received == [sent]
    assert received[0] is not sent


async def test_what_it_enqueued_and_showed_is_seen(monkeypatch):
    async def handler(ctx, _payload):
        ctx.progress(1, 2, "half")
        await ctx.enqueue(a_letter(pages=7), key="copy")

    patch(monkeypatch, handler)

    run = await perform(a_letter())

    assert run.enqueued(SendLetter) == [a_letter(pages=7)]
    assert run.follow_ups[0].request.key == "copy"
    assert run.progress == [(1, 2, "half")]


async def test_an_answer_that_keeps_nothing_keeps_no_follow_ups(monkeypatch):
    async def handler(ctx, _payload):
        await ctx.enqueue(a_letter(pages=7))
        return Cancel("not wanted")

    patch(monkeypatch, handler)

    assert (await perform(a_letter())).enqueued(SendLetter) == []


async def test_an_answer_that_no_worker_takes_is_refused(monkeypatch):
    async def handler(_ctx, _payload):
        return 42

    patch(monkeypatch, handler)

    with pytest.raises(TypeError, match="a Result or a decision, not int"):
        await perform(a_letter())


async def test_a_job_in_slices_goes_on_from_its_own_cursor_to_its_end(monkeypatch):
    async def handler(ctx, _payload):
        done = ctx.cursor or {"pages": 0}
        return Continue({"pages": done["pages"] + 1}) if done["pages"] < 3 else Cancel("printed")

    patch(monkeypatch, handler)

    runs = await perform_to_end(a_letter())

    assert [run.answer for run in runs] == [
        *(Continue({"pages": page}) for page in (1, 2, 3)),
        Cancel("printed"),
    ]


async def test_a_job_without_an_end_is_told(monkeypatch):
    async def handler(_ctx, _payload):
        return Continue(None)

    patch(monkeypatch, handler)
    monkeypatch.setattr(module, "SLICES_MAX", 3)

    with pytest.raises(EndlessJobError, match="send_letter is not at its end after 3 slices"):
        await perform_to_end(a_letter())


def patch(monkeypatch, handler):
    """Have letters handled by another handler."""
    job = replace(registry()["send_letter"], handler=handler)
    monkeypatch.setattr("jobs.testing.registry", lambda: {"send_letter": job})
