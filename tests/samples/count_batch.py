"""Count a batch: the job that follows one, and answers with how it ended."""

from typing import ClassVar

from . import BatchEnd, Context, Payload, Result, job


class CountBatch(Payload):
    """Which batch: filled in when it is over."""

    kind: ClassVar[str] = "count_batch"

    name: str = ""
    batch: BatchEnd | None = None


class BatchCounted(Result):
    """How it ended."""

    completed: int
    rejected: int
    dead: int
    cancelled: int


@job(CountBatch)
async def count_batch(ctx: Context, request: CountBatch) -> BatchCounted:
    """Answer with what the batch says."""
    del ctx
    assert request.batch is not None
    return BatchCounted.model_validate(request.batch.model_dump(exclude={"id"}))
