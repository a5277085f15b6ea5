"""Tell another service that a job has ended: post it to the endpoint that asked to hear of it.

Enqueued by PostgreSQL in the transaction that ends a job which names an endpoint. The receiver may
get a message twice, with the same `webhook-id`, and never one of an end that was rolled back.
"""

from datetime import datetime, timedelta
from typing import ClassVar, Final, Literal
from uuid import UUID

from pydantic_core import to_json

from . import Cancel, Context, Payload, Result, Retry, Snooze, job

DISABLED_AFTER: Final = timedelta(days=3)
"""An endpoint whose deliveries have failed for so long gets no more, until it is enabled."""
PAUSE_MIN: Final = timedelta(seconds=1)
"""At least so long is waited where a receiver asks for a pause."""


class DeliverWebhook(Payload):
    """Which end of which job, and to which endpoint."""

    kind: ClassVar[str] = "deliver_webhook"

    endpoint: str
    job_id: UUID
    job_kind: str
    state: Literal["completed", "rejected", "dead", "cancelled"]
    ended_at: datetime


class WebhookDelivered(Result):
    """The receiver has taken it."""

    status: int


class WebhookFailedError(Exception):
    """The receiver did not take it; it is tried again."""


@job(
    DeliverWebhook,
    timeout=timedelta(seconds=25),
    effects="outside",
    retry=Retry(attempts_max=40, base=timedelta(seconds=5), cap=timedelta(hours=4)),
    kept_for=timedelta(days=30),
)
async def deliver_webhook(
    ctx: Context, request: DeliverWebhook
) -> WebhookDelivered | Snooze | Cancel:
    """Post the end of a job, signed, to an endpoint that asked to hear of it."""
    # Imported here: a client loads this file as well, and posts nothing.
    from ._webhooks.messages import Verdict

    webhooks = ctx.services.webhooks
    destination = await webhooks.find(request.endpoint, request.job_id, request.state)
    if destination is None:
        return Cancel("the endpoint was removed")
    if destination.disabled_because is not None:
        return Cancel(f"the endpoint is disabled: {destination.disabled_because}")
    body = _message(request, destination.key, destination.result)
    answer = await webhooks.post(destination, ctx.idempotency_key, body)
    if answer.verdict is Verdict.DELIVERED:
        await webhooks.note_success(request.endpoint)
        return WebhookDelivered(status=answer.status)
    if answer.verdict is Verdict.GONE:
        await webhooks.disable(request.endpoint, "its receiver answered 410 Gone")
        return Cancel("the receiver wants no more of them (410 Gone)")
    await webhooks.note_failure(request.endpoint, DISABLED_AFTER)
    if answer.retry_after is not None:
        return Snooze(max(answer.retry_after, PAUSE_MIN))
    raise WebhookFailedError(answer.reason)


def _message(request: DeliverWebhook, key: str | None, result: object) -> bytes:
    """Return what is posted, in the shape that Standard Webhooks recommends."""
    data = {
        "job_id": request.job_id,
        "kind": request.job_kind,
        "key": key,
        "state": request.state,
        "result": result,
    }
    message = {"type": f"job.{request.state}", "timestamp": request.ended_at, "data": data}
    return to_json(message)
