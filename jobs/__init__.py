"""What work exists: one file per job, light enough for any service to import.

`ls jobs/` is the catalogue. A job file reads top to bottom: payload, policy, handler.
Importing it loads neither the database layer nor the worker.
"""

from ._batch import BatchEnd
from ._client.answers import Progress, Status
from ._client.batch import Batch
from ._client.batch_sql import BatchStatus
from ._client.client import Client
from ._client.handle import Handle
from ._context import Context
from ._decisions import Cancel, Continue, Rejected, Snooze
from ._errors import (
    ClientError,
    DoorClosedError,
    InvalidKeyError,
    InvalidPayloadError,
    InvalidTimeError,
    JobDeadError,
    JobNotFoundError,
    KeyConflictError,
    OtherBatchError,
    ResultTimeoutError,
    TooManyFollowUpsError,
    UnknownEndpointError,
    UnknownKindError,
)
from ._job import Job, Policy, job
from ._limits import Rate
from ._payload import Payload, Result
from ._registry import RegistryError, parse_payload, registry
from ._request import Request
from ._retry import Failure, Retry
from ._schedule import Cron, Every, Schedule

__all__ = [
    "Batch",
    "BatchEnd",
    "BatchStatus",
    "Cancel",
    "Client",
    "ClientError",
    "Context",
    "Continue",
    "Cron",
    "DoorClosedError",
    "Every",
    "Failure",
    "Handle",
    "InvalidKeyError",
    "InvalidPayloadError",
    "InvalidTimeError",
    "Job",
    "JobDeadError",
    "JobNotFoundError",
    "KeyConflictError",
    "OtherBatchError",
    "Payload",
    "Policy",
    "Progress",
    "Rate",
    "RegistryError",
    "Rejected",
    "Request",
    "Result",
    "ResultTimeoutError",
    "Retry",
    "Schedule",
    "Snooze",
    "Status",
    "TooManyFollowUpsError",
    "UnknownEndpointError",
    "UnknownKindError",
    "job",
    "parse_payload",
    "registry",
]
