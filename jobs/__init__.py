"""What work exists: one file per job, light enough for any service to import.

`ls jobs/` is the catalogue. A job file reads top to bottom: payload, policy, handler.
Importing it loads neither the database layer nor the worker.
"""

from ._job import Context, Job, Payload, Policy, Result, job
from ._outcome import Cancel, Rejected, Snooze
from ._registry import RegistryError, registry

__all__ = [
    "Cancel",
    "Context",
    "Job",
    "Payload",
    "Policy",
    "RegistryError",
    "Rejected",
    "Result",
    "Snooze",
    "job",
    "registry",
]
