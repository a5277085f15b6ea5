"""Enqueue one job, or a file of them."""

import asyncio
import re
import sys
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Final, Self

import orjson
import typer
from pydantic_core import from_json
from redis.asyncio import Redis
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from sqlalchemy.exc import DBAPIError

from db.engine import create_sessions
from db.errors import Trouble, diagnose
from jobs import Cancel, Client, ClientError, JobDeadError, Rejected, Result, parse_payload
from worker.app import database
from worker.cli.enqueue.keys import BATCH_CHARACTERS_MAX, Keys
from worker.cli.enqueue.lines import Bad, read_lines
from worker.cli.enqueue.loader import Loader, Totals
from worker.errors import StartupError, TellerError
from worker.settings import Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jobs import Payload

app = typer.Typer(add_completion=False, help=__doc__)

NOT_DONE: Final = 1
STDIN: Final = "-"
BAD_LINES_SHOWN_MAX: Final = 20
WAIT_S: Final = 60.0

_UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}

KindArgument = Annotated[str | None, typer.Argument(help="The kind of job; see docs/jobs.md.")]
PayloadArgument = Annotated[
    str | None, typer.Argument(metavar="JSON", help="Its payload; - reads it from standard input.")
]
Key = Annotated[
    str | None, typer.Option(help="The same key and payload is the same job, however often.")
]
RunAt = Annotated[
    str | None, typer.Option(help="Not before this time, as 2026-01-31T09:00:00+01:00.")
]
Delay = Annotated[str | None, typer.Option(help="Not before so long from now: 90s, 5m, 2h, 1d.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for the job's end and print its answer.")]
File = Annotated[
    str | None,
    typer.Option(help='JSON lines, {"kind": …, "payload": {…}}; - reads standard input.'),
]
Batch = Annotated[
    str | None,
    typer.Option(help="A name for the file's jobs; default: the file's. Another name, other jobs."),
]
Rejects = Annotated[
    Path | None, typer.Option(help="Write every bad line, with its reason, to this file.")
]


class UsageError(TellerError):
    """The command line asks for what cannot be done."""


@app.command()
def enqueue(  # noqa: PLR0913 - the options of a command line
    kind: KindArgument = None,
    payload: PayloadArgument = None,
    *,
    key: Key = None,
    run_at: RunAt = None,
    delay: Delay = None,
    wait: Wait = False,
    file: File = None,
    batch: Batch = None,
    rejects: Rejects = None,
) -> None:
    """Enqueue KIND with JSON, or every line of --file.

    A line is {"kind": …, "payload": {…}} with, if wanted, "key" and "run_at". Running the same
    file again enqueues nothing new: a line without a key gets one from the batch's name and its
    content. Two equal lines are two jobs.
    """
    if file is not None:
        if kind or payload or key or run_at or delay or wait:
            raise UsageError("--file takes kind, payload, key and run_at from its lines")
        raise typer.Exit(asyncio.run(_enqueue_file(load_settings(), file, batch, rejects)))
    if kind is None or payload is None or batch or rejects:
        raise UsageError("give KIND and JSON, or --file; see --help")
    try:
        wish = parse_payload(kind, _json(payload))
        when = _when(run_at, delay)
        code = asyncio.run(_enqueue_one(load_settings(), wish, key, when, wait=wait))
    except ClientError as error:
        raise UsageError(str(error)) from error
    except (OSError, DBAPIError) as error:
        if diagnose(error).trouble is not Trouble.CONNECTION:
            raise
        raise StartupError(
            "cannot reach the database: check DATABASE_URL, and that PostgreSQL is up"
        ) from error
    raise typer.Exit(code)


async def _enqueue_one(
    settings: Settings, wish: "Payload", key: str | None, run_at: datetime | None, *, wait: bool
) -> int:
    async with database(settings, name="teller-enqueue", pool_size=2) as engine:
        redis = Redis.from_url(str(settings.redis_url), socket_connect_timeout=2)
        sessions = create_sessions(engine)
        try:
            async with Client(redis, sessions=sessions, queue_name=settings.queue_name) as client:
                job = await client.enqueue(wish, key=key, run_at=run_at)
                typer.echo(f"{job.id}{'' if job.fresh else '  (was there already)'}")
                return _show(await job.result(WAIT_S)) if wait else 0
        except JobDeadError as error:
            typer.echo(str(error), err=True)
            return NOT_DONE
        finally:
            await redis.aclose()


def _show(answer: object) -> int:
    match answer:
        case Rejected(code, message):
            shown: Any = {"rejected": {"code": code, "message": message}}
        case Cancel(reason):
            shown = {"cancelled": {"reason": reason}}
        case Result():
            shown = answer.model_dump(mode="json")
        case _:
            shown = answer
    typer.echo(orjson.dumps(shown).decode())
    return NOT_DONE if isinstance(answer, Rejected | Cancel) else 0


async def _enqueue_file(
    settings: Settings, file: str, batch: str | None, rejects: Path | None
) -> int:
    name = _batch_name(file, batch)
    _refuse_same_file(file, rejects)
    console = Console(stderr=True)
    with ExitStack() as exits:
        source = exits.enter_context(_source(file))
        keys = exits.enter_context(Keys(name))
        complaints = exits.enter_context(_Complaints(console, rejects))
        on_progress = exits.enter_context(_bar(console, file))
        redis = Redis.from_url(str(settings.redis_url), socket_connect_timeout=2)
        async with database(settings, name="teller-enqueue", pool_size=1) as engine:
            loader = Loader(
                create_sessions(engine),
                redis,
                settings.queue_name,
                on_bad=complaints.add,
                on_progress=on_progress,
            )
            try:
                totals = await loader.load(read_lines(source), keys)
            finally:
                await redis.aclose()
    typer.echo(
        f"{totals.lines:,} lines: {totals.fresh:,} enqueued, {totals.there:,} were there already, "
        f"{totals.bad:,} bad"
    )
    return NOT_DONE if totals.bad else 0


class _Complaints:
    """Tells of bad lines: the first few on standard error, all of them in the rejects file."""

    def __init__(self, console: Console, rejects: Path | None) -> None:
        self._console = console
        self._rejects = rejects
        self._output: BinaryIO | None = None
        self._count = 0

    def __enter__(self) -> Self:
        """Return itself; the file is made with the first bad line."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the rejects file, and say how many were not shown."""
        if self._output is not None:
            self._output.close()
        more = self._count - BAD_LINES_SHOWN_MAX
        if more > 0:
            where = f"all are in {self._rejects}" if self._rejects else "--rejects FILE keeps all"
            self._say(f"and {more:,} more bad lines; {where}")

    def add(self, bad: Bad) -> None:
        """Take one bad line."""
        self._count += 1
        if self._count <= BAD_LINES_SHOWN_MAX:
            self._say(f"line {bad.line.number}: {bad.reason}")
        if self._rejects is not None:
            if self._output is None:
                self._output = self._rejects.open("wb")
            self._output.write(orjson.dumps(_reject(bad)) + b"\n")

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def _reject(bad: Bad) -> dict[str, object]:
    text = bad.line.text.decode(errors="replace")
    return {"line": bad.line.number, "error": bad.reason, "text": text}


@contextmanager
def _source(file: str) -> "Iterator[BinaryIO]":
    if file == STDIN:
        yield sys.stdin.buffer
        return
    try:
        source = Path(file).open("rb")  # noqa: SIM115 - closed below; only opening is our business
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from None
    with source:
        yield source


@contextmanager
def _bar(console: Console, file: str) -> "Iterator[Callable[[Totals], None]]":
    """Show progress by bytes where the size is known, and by lines in any case."""
    size = None if file == STDIN or not Path(file).is_file() else Path(file).stat().st_size
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("0 lines", total=size)

        def show(totals: Totals) -> None:
            bar.update(task, completed=totals.bytes_read, description=f"{totals.lines:,} lines")

        yield show


def _batch_name(file: str, batch: str | None) -> str:
    name = batch or (Path(file).name if file != STDIN else "")
    if not name:
        raise UsageError("lines from standard input need --batch NAME, so that they can be re-run")
    if batch and len(batch) > BATCH_CHARACTERS_MAX:
        raise UsageError(f"--batch has at most {BATCH_CHARACTERS_MAX} characters")
    return name


def _refuse_same_file(file: str, rejects: Path | None) -> None:
    if rejects is not None and file != STDIN and rejects.resolve() == Path(file).resolve():
        raise UsageError("--rejects would overwrite the file that is being read")


def _json(text: str) -> object:
    raw = sys.stdin.buffer.read() if text == STDIN else text
    try:
        return from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        raise UsageError(f"the payload is not JSON: {error}") from None


def _when(run_at: str | None, delay: str | None) -> datetime | None:
    if run_at is not None and delay is not None:
        raise UsageError("give --run-at or --delay, not both")
    if delay is not None:
        found = re.fullmatch(r"([0-9]{1,9})([smhd])", delay)
        if found is None:
            raise UsageError("--delay is a whole number and a unit: 90s, 5m, 2h, 1d")
        return datetime.now(UTC) + timedelta(seconds=int(found[1]) * _UNITS[found[2]])
    if run_at is None:
        return None
    try:
        return datetime.fromisoformat(run_at)
    except ValueError:
        raise UsageError("--run-at is a time like 2026-01-31T09:00:00+01:00") from None
