"""Jobs as a person or a program reads them."""

from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID

from rich.table import Column, Table
from rich.text import Text
from rich.tree import Tree

from db.operations import FAMILY_MAX, REPLAYED, Line, Position, Relative, Whole
from worker.cli._times import short_span, short_time
from worker.errors import visible
from worker.tables import add_row, cell, json_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import Console

ID_CHARACTERS: Final = 36
STYLES: Final = {"dead": "red", "queued": "cyan", "rejected": "yellow"}


def list_as_json(lines: "Sequence[Line]") -> str:
    """Return jobs as JSON, one per line."""
    return "\n".join(json_text(asdict(line)) for line in lines)


def list_as_tsv(lines: "Sequence[Line]") -> str:
    """Return jobs as tab-separated values under a line of names, for a pipe."""
    rows = [("id", "kind", "state", "attempts", "accepted", "ended", "error", "sqlstate")]
    for line in lines:
        ended = "" if line.finished_at is None else line.finished_at.isoformat()
        facts = (line.kind, line.state, str(line.attempts), line.enqueued_at.isoformat(), ended)
        rows.append((str(line.id), *facts, line.error or "", line.sqlstate or ""))
    return "\n".join("\t".join(map(visible, row)) for row in rows)


def show_list(lines: "Sequence[Line]", console: "Console", now: datetime) -> None:
    """Print a page of jobs, a line each, as far as the terminal is wide.

    Columns that say the least are left out first. An id is there to be copied: it is never cut.
    """
    shown = [
        column
        for column in _COLUMNS
        if console.width >= column.from_width
        and (column.name != "error" or any(line.error for line in lines))
    ]
    table = Table(*map(_header, shown), box=None, pad_edge=False)
    for line in lines:
        cells = [column.cell(line, now) for column in shown]
        add_row(table, *cells, style=STYLES.get(line.state, ""))
    console.print(table)


class _Column(NamedTuple):
    """A fact about a job, and from how many characters of the terminal on it is shown."""

    name: str
    from_width: int
    cell: "Callable[[Line, datetime], str]"


_COLUMNS: Final = (
    _Column("id", 0, lambda line, _now: str(line.id)),
    _Column("kind", 0, lambda line, _now: line.kind),
    _Column("state", 58, lambda line, _now: line.state),
    _Column("accepted", 70, lambda line, now: short_time(line.enqueued_at, now)),
    _Column("ended after", 92, lambda line, _now: _took(line)),
    _Column("error", 80, lambda line, _now: " ".join(filter(None, (line.error, line.sqlstate)))),
)


def _header(column: _Column) -> Column:
    if column.name == "id":
        return Column(column.name, no_wrap=True, min_width=ID_CHARACTERS)
    return Column(column.name, no_wrap=True, overflow="ellipsis")


def _took(line: Line) -> str:
    return "" if line.finished_at is None else short_span(line.finished_at - line.enqueued_at)


def whole_as_dict(job: Whole, family: "Sequence[Relative]", *, payload: bool) -> dict[str, Any]:
    """Return a job for JSON; `payload` includes payload and result, which may be personal."""
    whole = asdict(job) | {"family": [asdict(one) for one in family]}
    if not payload:
        del whole["payload"], whole["result"], whole["cursor"]
    return whole


def show_whole(
    job: Whole, family: "Sequence[Relative]", console: "Console", *, payload: bool
) -> None:
    """Print everything about one job, and the family it belongs to."""
    facts = Table(show_header=False, box=None)
    for name, value in _facts(job, payload=payload):
        facts.add_row(f"[bold]{name}[/]", cell(value))
    console.print(facts)
    if job.errors:
        console.print(_history(job))
    if len(family) > 1:
        console.print(_tree(job, family))


def _facts(job: Whole, *, payload: bool) -> list[tuple[str, str]]:
    hidden = "not shown: it may be personal; --payload shows it"
    return [
        ("id", str(job.id)),
        ("id in Redis", job.redis_id or str(job.id)),
        ("kind", job.kind),
        ("key", job.key or ""),
        ("queue", job.queue),
        ("state", job.state),
        ("attempts", str(job.attempts)),
        ("conflicts", str(job.conflicts or "")),
        ("crashes", str(job.crashes or "")),
        ("waits for", _blocked(job)),
        ("run by", str(job.leased_by or "")),
        ("accepted", _time(job.enqueued_at)),
        ("runs at", _time(job.run_at)),
        ("sent to Redis", _time(job.dispatched_at)),
        ("ended", _time(job.finished_at)),
        ("trace", job.traceparent or ""),
        ("enqueued by", str(job.parent_id or "")),
        ("slices", str(job.slices or "")),
        ("cursor", "" if not job.slices else json_text(job.cursor) if payload else hidden),
        ("progress", "" if job.progress is None else json_text(job.progress)),
        ("payload", json_text(job.payload) if payload else hidden),
        ("result", json_text(job.result) if payload else hidden),
    ]


def _blocked(job: Whole) -> str:
    if job.blocked_by is None:
        return ""
    return f"{job.blocked_by}, since {_time(job.blocked_since)}"


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


def _tree(job: Whole, family: "Sequence[Relative]") -> Tree:
    """Draw who enqueued whom; the job itself is in bold type."""
    tree = Tree("family" if len(family) < FAMILY_MAX else f"the first {FAMILY_MAX} of the family")
    branches: dict[UUID | None, Tree] = {}
    for one in family:
        bold = "bold " if one.id == job.id else ""
        label = Text(f"{one.id} {one.kind} {one.state}", style=bold + STYLES.get(one.state, ""))
        branches[one.id] = branches.get(one.parent_id, tree).add(label)
    return tree


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
