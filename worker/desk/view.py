"""Templates, and how values are written: times, spans, numbers, states."""

import hashlib
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from worker.errors import visible

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE: Final = Path(__file__).parent
STATIC: Final = HERE / "static"

# A state is a word, a shape and a colour: never a colour alone.
SHAPES: Final = {
    "queued": "◷",
    "completed": "✓",
    "rejected": "⊘",
    "dead": "✕",
    "cancelled": "\N{MINUS SIGN}",
}


@cache
def environment() -> Environment:
    """Return the templates, with what they are written with."""
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        time=time,
        span=span,
        number=number,
        json=json,
        plain=visible,
        seconds=seconds,
        sum_state=sum_state,
    )
    made.globals.update(state=state, strip=strip, static_version=static_version(), bars=bars)
    return made


@cache
def static_version() -> str:
    """Return what changes when a static file does, so that browsers may keep them forever."""
    digest = hashlib.sha256()
    for path in sorted(STATIC.iterdir()):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def time(at: datetime | None, *, short: bool = False) -> Markup:
    """Return a time in UTC; the page's script adds the reader's own zone where it is pointed at."""
    if at is None:
        return Markup('<span class="none">-</span>')
    utc = at.astimezone(UTC)
    today = utc.date() == datetime.now(UTC).date()
    shown = f"{utc:%H:%M:%S}" if short and today else f"{utc:%Y-%m-%d %H:%M:%S}"
    iso = utc.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return Markup('<time datetime="{}" title="{} UTC">{}</time>').format(
        iso, f"{utc:%Y-%m-%d %H:%M:%S.%f}"[:-3], shown
    )


def seconds(value: float | None) -> str:
    """Return a length of time, given in seconds; never a negative one."""
    return "-" if value is None else span(timedelta(seconds=value))


def span(value: timedelta | None) -> str:
    """Return a length of time in its two largest units, or in milliseconds; never a negative one.

    >>> [span(timedelta(seconds=seconds)) for seconds in (-3, 0.0482, 9.64, 75, 93_780)]
    ['0 ms', '48 ms', '9.6 s', '1m 15s', '1d 2h']
    """
    if value is None:
        return "-"
    whole = max(value.total_seconds(), 0)
    if whole < 1:
        return f"{whole * 1000:.0f} ms"
    if whole < 60:  # noqa: PLR2004 - a minute
        return f"{whole:.1f} s"
    minutes, hours = int(whole) // 60, int(whole) // 3_600
    if hours == 0:
        return f"{minutes}m {int(whole) % 60}s"
    if hours < 24:  # noqa: PLR2004 - a day
        return f"{hours}h {minutes % 60}m"
    return f"{hours // 24}d {hours % 24}h"


def number(value: float, bound: int | None = None) -> str:
    """Return a whole number in groups of three digits; one above its bound ends with `+`."""
    if bound is not None and value >= bound:
        return f"{bound:,}+"
    return f"{value:,.0f}"


def json(value: Any) -> str:  # noqa: ANN401 - any JSON
    """Return JSON as a person reads it."""
    return visible(orjson.dumps(value, default=str, option=orjson.OPT_INDENT_2).decode())


def state(name: str, word: str | None = None) -> Markup:
    """Return a state as its shape and its word."""
    return Markup('<span class="state s-{}"><i aria-hidden="true">{}</i>{}</span>').format(
        name, SHAPES.get(name, "•"), word or name
    )


def sum_state(minutes: "Sequence[tuple[str, dict[str, int]]]", name: str) -> int:
    """Return how many jobs ended in a state, in all of the minutes."""
    return sum(counts.get(name, 0) for _, counts in minutes)


def strip(counts: "Sequence[int]", label: str) -> Markup:
    """Return a small chart of counts in order, with what it says as text."""
    top = max([*counts, 1])
    parts = [
        Markup('<rect x="{}" y="{}" width="3" height="{}"/>').format(
            4 * place, 20 - max(1, round(19 * count / top)), max(1, round(19 * count / top))
        )
        for place, count in enumerate(counts)
        if count
    ]
    return Markup(
        '<svg class="strip" viewBox="0 0 {} 20" role="img" aria-label="{}" '
        'preserveAspectRatio="none">{}</svg>'
    ).format(4 * len(counts), label, Markup("").join(parts))


def bars(minutes: "Sequence[tuple[str, dict[str, int]]]", states: "Sequence[str]") -> Markup:
    """Return a chart of what ended in each minute, by state, each bar with its numbers."""
    top = max([sum(counts.values()) for _, counts in minutes] + [1])
    drawn: list[Markup] = []
    for place, (label, counts) in enumerate(minutes):
        below = 100.0
        parts = []
        for name in states:
            height = 96 * counts.get(name, 0) / top
            if height:
                below -= height
                parts.append(
                    Markup(
                        '<rect class="f-{}" x="{}" y="{:.2f}" width="8" height="{:.2f}"/>'
                    ).format(name, 10 * place + 1, below, height)
                )
        told = ", ".join(f"{count:,} {name}" for name, count in counts.items()) or "none"
        parts.append(
            Markup(
                '<rect class="hit" x="{}" y="0" width="10" height="100"><title>{}</title></rect>'
            ).format(10 * place, f"{label} UTC: {told}")
        )
        drawn.append(Markup("<g>{}</g>").format(Markup("").join(parts)))
    return Markup(
        '<svg class="bars" viewBox="0 0 {} 100" preserveAspectRatio="none" role="img" '
        'aria-label="Jobs that ended in each of the last {} minutes; at most {} in one">{}</svg>'
    ).format(10 * len(minutes), len(minutes), f"{top:,}", Markup("").join(drawn))
