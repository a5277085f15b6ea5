"""One job from the command line: enqueued and, if wanted, waited for."""

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import typer
from pydantic_core import from_json

from jobs import Cancel, Client, ClientError, JobDeadError, Rejected, Result, parse_payload
from worker.cli._alive import still_working
from worker.cli._connections import open_connections
from worker.cli._options import UsageError, standard_input
from worker.cli.enqueue.lines import STDIN
from worker.errors import tell
from worker.tables import json_text

if TYPE_CHECKING:
    from jobs import Payload

DONE: Final = 0
NOT_DONE: Final = 1
WAIT_MAX_S: Final = 60.0


def payload_of(kind: str, text: str) -> "Payload":
    """Return the payload that the command line, or standard input, holds for a kind.

    Raises:
        UsageError: it is not JSON, or does not fit the kind.
    """
    raw = standard_input().read() if text == STDIN else text
    try:
        return parse_payload(kind, from_json(raw, allow_inf_nan=False))
    except ClientError as error:
        raise UsageError(str(error)) from error
    except ValueError as error:
        raise UsageError(f"the payload is not JSON: {error}") from None


async def enqueue_one(
    payload: "Payload", key: str | None, run_at: datetime | None, *, wait: bool
) -> int:
    """Enqueue a job and print its id, with `wait` its answer too; return the exit code.

    Raises:
        UsageError: the job was refused, or did not end within `WAIT_MAX_S`.
    """
    async with open_connections("enqueue", pool_size=2) as opened:
        queue_name = opened.settings.queue_name
        client = Client(opened.redis, sessions=opened.sessions, queue_name=queue_name)
        try:
            async with client:
                job = await client.enqueue(payload, key=key, run_at=run_at)
                typer.echo(f"{job.id}{'  (was there already)' if job.duplicate else ''}")
                if not wait:
                    return DONE
                async with still_working(lambda: f"the end of job {job.id}"):
                    answer = await job.result(WAIT_MAX_S)
                return _print_answer(answer)
        except JobDeadError as error:
            tell(str(error))
            return NOT_DONE
        except ClientError as error:
            raise UsageError(str(error)) from error


def _print_answer(answer: object) -> int:
    match answer:
        case Rejected(code, message):
            shown: Any = {"rejected": {"code": code, "message": message}}
        case Cancel(reason):
            shown = {"cancelled": {"reason": reason}}
        case Result():
            shown = answer.model_dump(mode="json")
        case _:
            shown = answer
    typer.echo(json_text(shown))
    return NOT_DONE if isinstance(answer, Rejected | Cancel) else DONE
