"""`jobs._job` and `jobs._registry`: from a handler to a job, and from a folder to its jobs."""

import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import ClassVar
from uuid import UUID, uuid4

import pytest

from jobs import Cancel, Context, Every, Payload, Policy, Result, Retry, Schedule, job, registry
from jobs import _registry as module
from jobs._registry import RegistryError, may_be_personal


class Add(Payload):
    """Two numbers."""

    kind: ClassVar[str] = "add"

    a: int
    b: int


class Sum(Result):
    """Their sum."""

    sum: int


@job(Add)
async def add(ctx: Context, payload: Add) -> Sum | Cancel:
    """Add two numbers."""
    return Sum(sum=payload.a + payload.b) if ctx.try_number == 1 else Cancel("too late")


async def test_a_handler_can_be_called_for_a_unit_test():
    ctx = Context(UUID(int=1), 1, datetime.now(UTC), SimpleNamespace(), SimpleNamespace())  # type: ignore[arg-type]

    assert await add(ctx, Add(a=2, b=3)) == Sum(sum=5)
    assert await add(replace(ctx, try_number=2), Add(a=2, b=3)) == Cancel("too late")


def test_a_job_knows_what_its_handler_says():
    assert (add.kind, add.description, add.result_type()) == ("add", "Add two numbers.", Sum)


def test_what_is_left_out_is_the_policys_default():
    assert add.policy == Policy()
    assert add.schedules == ()


def test_every_part_of_the_policy_can_be_set():
    policy = Policy(
        timeout=timedelta(seconds=1),
        retry=Retry(attempts_max=2, base=timedelta(seconds=3), cap=timedelta(seconds=4)),
        on_dead=lambda _payload, _failure: None,
        snapshot=True,
        kept_for=timedelta(days=5),
    )
    every_second = Schedule("add", Every(timedelta(seconds=1)), Add(a=1, b=1))
    made = job(
        Add,
        timeout=policy.timeout,
        retry=policy.retry,
        on_dead=policy.on_dead,
        snapshot=policy.snapshot,
        kept_for=policy.kept_for,
        schedules=[every_second],
    )(add.handler)

    assert (made.policy, made.schedules) == (policy, (every_second,))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of jobs that the registry reads instead of ours; returns how to add a file."""
    package = tmp_path / f"jobs_{uuid4().hex}"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(module, "__package__", package.name)
    registry.cache_clear()
    yield lambda name, text: (package / name).write_text(text)
    registry.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == package.name]:
        del sys.modules[name]


ONE_JOB = """
from jobs import Payload, job
class P(Payload):
    kind = "{kind}"
@job(P)
async def run(ctx, payload): ...
"""


def test_a_file_without_a_job_is_refused_unless_it_has_an_underscore(folder):
    folder("_helper.py", "")
    assert registry() == {}
    registry.cache_clear()
    folder("empty.py", "")

    with pytest.raises(RegistryError, match=r"empty holds 0 jobs.*underscore"):
        registry()


def test_two_files_cannot_share_a_kind(folder):
    folder("one.py", ONE_JOB.format(kind="same"))
    folder("two.py", ONE_JOB.format(kind="same"))

    with pytest.raises(RegistryError, match=r"two\.py: the kind 'same' is taken"):
        registry()


def test_a_payload_of_an_unknown_kind_may_be_personal(letters):
    assert may_be_personal("send_card")
    assert may_be_personal("unheard_of")
    assert not may_be_personal("send_letter")
