"""The folder is the registry: every file without an underscore is a job."""

from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from ._errors import InvalidPayloadError, UnknownKindError
from ._job import Job
from ._payload import validation_message
from ._queue import DEFAULT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ._payload import Payload


TESTING: Final = "testing"
"""The one file without an underscore that is no job: what tests of jobs import."""


class RegistryError(Exception):
    """A file in the folder is not one job."""


@cache
def registry() -> "Mapping[str, Job]":
    """Return every job by its kind, in order of name.

    Raises:
        RegistryError: a file holds no job or several, or two files share a kind.
    """
    package = import_module(__package__ or "jobs")
    found: dict[str, Job] = {}
    for module in sorted(iter_modules(package.__path__), key=lambda module: module.name):
        if module.name.startswith("_") or module.name == TESTING:
            continue
        one = _job_in(f"{package.__name__}.{module.name}")
        if one.kind in found:
            raise RegistryError(f"{module.name}.py: the kind {one.kind!r} is taken; rename it")
        found[one.kind] = one
    return MappingProxyType(found)


def may_be_personal(kind: str) -> bool:
    """Return whether a payload of this kind may be personal; one of an unknown kind may be."""
    job = registry().get(kind)
    return job is None or job.payload.is_personal()


def queue_of(kind: str) -> str:
    """Return the queue that jobs of a kind wait in; `default` for an unknown kind."""
    job = registry().get(kind)
    return DEFAULT if job is None else job.policy.queue


def queues() -> tuple[str, ...]:
    """Return the queues of all kinds, `default` first."""
    named = {job.policy.queue for job in registry().values()}
    return DEFAULT, *sorted(named - {DEFAULT})


def parse_payload(kind: str, raw: object) -> "Payload":
    """Return the payload of `kind` that these JSON values make.

    Raises:
        UnknownKindError: there is no such kind.
        InvalidPayloadError: they do not fit it; the message names the fields, never their values.
    """
    job = registry().get(kind)
    if job is None:
        meant = did_you_mean(kind[:100], registry())
        raise UnknownKindError(
            f"unknown job kind {kind[:100]!r}{meant}; known kinds: {', '.join(registry())}"
        )
    try:
        return job.payload.from_wire(raw)
    except ValidationError as error:
        message = f"invalid payload for {kind}: {validation_message(error)}"
        raise InvalidPayloadError(message) from None
    except (PydanticSerializationError, ValueError) as error:
        raise InvalidPayloadError(f"invalid payload for {kind}: not JSON ({error})") from None


def did_you_mean(name: str, known: "Iterable[str]") -> str:
    """Return ` (did you mean 'this'?)` where a known name is like the one given, else nothing."""
    # Imported here: a client loads this file as well, and hardly ever comes by.
    from difflib import get_close_matches

    like = get_close_matches(name, known, n=1)
    return f" (did you mean {like[0]!r}?)" if like and like[0] != name else ""


def _job_in(module_name: str) -> Job:
    jobs = [value for value in vars(import_module(module_name)).values() if isinstance(value, Job)]
    if len(jobs) != 1:
        raise RegistryError(
            f"{module_name} holds {len(jobs)} jobs, not one; "
            "machinery belongs in a file that begins with an underscore"
        )
    return jobs[0]
