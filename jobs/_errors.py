"""What a client may raise. Each message says what to do.

ClientError
├── UnknownKindError      nobody has registered this kind of job
├── InvalidPayloadError   the payload does not fit its kind, or cannot be stored
├── InvalidKeyError       a key has 1 to 200 characters
├── InvalidTimeError      run_at has a time zone and a year from 1970 to 9999; also a ValueError
├── KeyConflictError      the key belongs to a job with another payload
├── UnknownEndpointError  nobody has added this webhook endpoint
├── OtherBatchError       the job is in another batch already
├── TooManyFollowUpsError a job enqueues at most 1,000 others in one run
├── JobNotFoundError      no such job is known where the client can look
├── JobDeadError          the job failed for good
├── ResultTimeoutError    no result within the time given; also a TimeoutError
└── DoorClosedError       the client has neither a session nor a Redis for what was asked
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uuid import UUID


class ClientError(Exception):
    """The base of all errors of the client."""


class UnknownKindError(ClientError):
    """Nobody has registered this kind of job."""


class InvalidPayloadError(ClientError):
    """The payload does not fit its kind, or cannot be stored."""


class InvalidKeyError(ClientError):
    """A key has 1 to 200 characters."""


class OtherBatchError(ClientError):
    """A job that was accepted before is in another batch already."""


class InvalidTimeError(ClientError, ValueError):
    """`run_at` has a time zone, and a year from 1970 to 9999."""


class KeyConflictError(ClientError):
    """The key belongs to a job with another payload."""


class UnknownEndpointError(ClientError):
    """Nobody has added this webhook endpoint."""


class TooManyFollowUpsError(ClientError):
    """A job enqueues at most 1,000 others in one run; `Continue` goes on with more."""


class JobNotFoundError(ClientError):
    """No such job is known where the client can look."""


class JobDeadError(ClientError):
    """The job failed for good; PostgreSQL keeps every error."""

    def __init__(self, job_id: "UUID") -> None:
        super().__init__(
            f"job {job_id} is dead: `python -m worker jobs show {job_id}` has its errors, "
            f"`python -m worker jobs retry {job_id}` runs it again"
        )
        self.job_id = job_id


class ResultTimeoutError(ClientError, TimeoutError):
    """No result within the time given; the job itself goes on."""


class DoorClosedError(ClientError):
    """The client has neither a session nor a Redis for what was asked."""
