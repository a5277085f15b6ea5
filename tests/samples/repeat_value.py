"""Repeat a value: any JSON in, the same JSON out, in a result with a field of a telling name."""

from datetime import timedelta
from typing import Any, ClassVar

from . import Context, Payload, Result, job


class RepeatValue(Payload):
    """What to repeat."""

    kind: ClassVar[str] = "repeat_value"

    value: Any


class Repeated(Result):
    """The value again."""

    rejected: Any


@job(RepeatValue, timeout=timedelta(seconds=10))
async def repeat_value(ctx: Context, request: RepeatValue) -> Repeated:
    """Answer with the value."""
    del ctx
    return Repeated(rejected=request.value)
