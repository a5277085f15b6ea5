"""A delivery's payload: parsed, or why there is none; and kept out of the texts of errors."""

from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from jobs._payload import validation_message
from worker.execution.error_text import describe, read_private, redact
from worker.execution.failures import invalid_payload, not_a_job

if TYPE_CHECKING:
    from db.execution import Failure
    from jobs import Job, Payload
    from worker.execution.delivery import Delivery
    from worker.execution.error_text import ErrorText

MALFORMED_KIND: Final = "malformed"
"""The kind under which a body is kept that is no job at all."""


def parse(
    job: "Job | None", delivery: "Delivery", error_text: "ErrorText"
) -> "Payload | Failure | None":
    """Return the payload, or why there is none; None for a kind that is unknown here."""
    if delivery.job.kind == MALFORMED_KIND:
        return not_a_job()
    if delivery.fault is not None:
        return invalid_payload(delivery.fault)
    if job is None:
        return None
    try:
        return job.payload.model_validate_json(delivery.job.payload_json)
    except ValidationError as error:
        message = validation_message(error)
        if error_text != "full":
            message = redact(message, read_private(delivery.job.payload_json))
        return invalid_payload(message)


def describe_error(
    error: BaseException, job: "Job | None", delivery: "Delivery", error_text: "ErrorText"
) -> "Failure":
    """Return what is kept of an error: without the payload's values, unless they are wanted."""
    if error_text == "full":
        return describe(error)
    payload_json = delivery.job.payload_json
    try:
        parsed = job and job.payload.model_validate_json(payload_json)
    except BaseException:  # noqa: BLE001 - a validator is the job's code
        parsed = None
    return describe(error, read_private(payload_json), parsed)
