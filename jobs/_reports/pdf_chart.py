"""A chart as shares of its own width and height; `report.typ` draws it."""

import math
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from jobs._reports.pdf_text import human

if TYPE_CHECKING:
    from jobs._reports.document import Chart

Y_TICKS: Final = 4
X_TICKS: Final = 6
DAY_S: Final = 86_400


def chart_of(chart: "Chart", currency: str) -> dict[str, Any]:
    """Return what the template draws."""
    amounts = [float(amount) for _, amount in chart.points]
    ticks = round_ticks(min(0.0, *amounts), max(0.0, *amounts))
    low, high = ticks[0], ticks[-1]

    def y(amount: float) -> float:
        return (amount - low) / (high - low)

    drawn = {
        "title": f"{chart.title}, {currency}",
        "alt": _in_words(chart, currency),
        "style": chart.style,
        "y_ticks": [(y(tick), human("count", f"{tick:.10g}")) for tick in ticks],
        "base": y(0),
    }
    if chart.style == "bars":
        return drawn | {
            "points": [(0, y(amount)) for amount in amounts],
            "x_ticks": _day_ticks([day for day, _ in chart.points]),
        }
    times = [datetime.fromisoformat(at) for at, _ in chart.points]
    span = max((times[-1] - times[0]).total_seconds(), 1.0)
    xs = [(time - times[0]).total_seconds() / span for time in times]
    return drawn | {
        "points": _steps(xs, [y(amount) for amount in amounts]),
        "x_ticks": _time_ticks(times[0], times[-1], span),
    }


def _in_words(chart: "Chart", currency: str) -> str:
    """Return what whoever cannot see the chart is told."""
    amounts = sorted((amount for _, amount in chart.points), key=Decimal)
    low, high = human("money", amounts[0]), human("money", amounts[-1])
    return f"{chart.title} in {currency}: between {low} and {high}; the table has each value"


def round_ticks(low: float, high: float) -> list[float]:
    """Return round numbers that enclose both, about `Y_TICKS` of them."""
    width = (high - low) or 1.0
    rough = width / Y_TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [number * step for number in range(first, max(last, first + 1) + 1)]


def _steps(xs: list[float], ys: list[float]) -> list[tuple[float, float]]:
    """Return the corners of a line that stays level until the next point."""
    corners = [(xs[0], ys[0])]
    for x, y in zip(xs[1:], ys[1:], strict=True):
        corners += [(x, corners[-1][1]), (x, y)]
    return corners if len(corners) > 1 else [*corners, (1.0, ys[0])]


def _time_ticks(first: datetime, last: datetime, span_s: float) -> list[tuple[float, str]]:
    form = "%d %b" if span_s > 2 * DAY_S else "%H:%M" if span_s > X_TICKS * 60 else "%H:%M:%S"
    shares = [index / X_TICKS for index in range(X_TICKS + 1)]
    labels = [(share, (first + (last - first) * share).strftime(form)) for share in shares]
    # A label that repeats the one before it says nothing.
    return [tick for n, tick in enumerate(labels) if n == 0 or tick[1] != labels[n - 1][1]]


def _day_ticks(days: list[str]) -> list[tuple[float, str]]:
    every = max(1, math.ceil(len(days) / (2 * X_TICKS)))
    return [
        ((index + 0.5) / len(days), f"{datetime.fromisoformat(day):%d %b}")
        for index, day in enumerate(days)
        if index % every == 0
    ]
