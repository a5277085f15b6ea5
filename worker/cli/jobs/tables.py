"""Jobs as a person or a program reads them."""

from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from rich.table import Column, Table

from db.operations import REPLAYED, Line, Position, Whole
from worker.cli._tables import add_row, cell, json_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

ID_CHARACTERS: Final = 36
STYLES: Final = {"dead": "red", "queued": "cyan", "rejected": "yellow"}


def list_as_json(lines: "Sequence[Line]") -> str:
    """Return jobs as JSON, one per line."""
    return "\n".join(json_text(asdict(line)) for line in lines)


def show_list(lines: "Sequence[Line]", console: "Console") -> None:
    """Print a page of jobs."""
    # An id is there to be copied: it is never cut, whatever the width.
    table = Table(
        Column("id", no_wrap=True, min_width=ID_CHARACTERS),
        *(Column(name, overflow="fold") for name in ("kind", "state", "tries")),
        *(Column(name, overflow="fold") for name in ("accepted", "ended", "last error")),
    )
    for line in lines:
        error = " ".join(part for part in (line.error, line.sqlstate) if part)
        add_row(
            table,
            str(line.id),
            line.kind,
            line.state,
            str(line.attempts),
            _time(line.enqueued_at),
            _time(line.finished_at),
            error,
            style=STYLES.get(line.state, ""),
        )
    console.print(table)


def whole_as_dict(job: Whole, *, payload: bool) -> dict[str, Any]:
    """Return a job for JSON; `payload` includes payload and result, which may be personal."""
    whole = asdict(job)
    if not payload:
        del whole["payload"], whole["result"]
    return whole


def show_whole(job: Whole, console: "Console", *, payload: bool) -> None:
    """Print everything about one job."""
    facts = Table(show_header=False, box=None)
    for name, value in _facts(job, payload=payload):
        facts.add_row(f"[bold]{name}[/]", cell(value))
    console.print(facts)
    if job.errors:
        console.print(_history(job))


def _facts(job: Whole, *, payload: bool) -> list[tuple[str, str]]:
    hidden = "not shown: it may be personal; --payload shows it"
    return [
        ("id", str(job.id)),
        ("id in Redis", job.redis_id or str(job.id)),
        ("kind", job.kind),
        ("key", job.key or ""),
        ("state", job.state),
        ("attempts", str(job.attempts)),
        ("accepted", _time(job.enqueued_at)),
        ("runs at", _time(job.run_at)),
        ("sent to Redis", _time(job.dispatched_at)),
        ("ended", _time(job.finished_at)),
        ("trace", job.traceparent or ""),
        ("payload", json_text(job.payload) if payload else hidden),
        ("result", json_text(job.result) if payload else hidden),
    ]


def _history(job: Whole) -> Table:
    table = Table("at", "try", "error", "SQLSTATE", "message")
    for entry in job.errors:
        add_row(
            table,
            str(entry.get("at")),
            str(entry.get("try")),
            str(entry.get("error")),
            str(entry.get("sqlstate") or ""),
            str(entry.get("message")),
            style="green" if entry.get("error") == REPLAYED else "",
        )
    return table


def cursor_of(line: Line) -> str:
    """Return what `--after` takes to continue behind a line."""
    return f"{line.enqueued_at.isoformat()}_{line.id}"


def read_cursor(cursor: str) -> Position:
    """Return the position that a cursor names.

    Raises:
        ValueError: it names none.
    """
    at, _, job_id = cursor.partition("_")
    return datetime.fromisoformat(at), UUID(job_id)


def _time(at: datetime | None) -> str:
    return "" if at is None else at.isoformat(sep=" ", timespec="milliseconds")
