"""The table as a picture: bars at the medians, whiskers over the spread, ratio and target in words.

Rows that share our samples stand together under our one bar. Every group has a scale of its own,
since no two have the same unit; within one, lengths compare.
"""

import math
import re
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

from tests.bench.loop import Row

WIDTH: Final = 960
MARGIN: Final = 32
LABEL_END: Final = 216
BARS: Final = 228
BARS_WIDTH: Final = 400
RATIO_END: Final = 790
TARGET_END: Final = WIDTH - MARGIN
TOP: Final = 84
GROUP_HEAD: Final = 30
GROUP_GAP: Final = 12
LINE: Final = 24
BAR: Final = 14
BASELINE: Final = 12  # from the top of a bar to the foot of the text beside it
CAP: Final = 3
TENTH: Final = 0.1
FOOT_LINE: Final = 16
FOOT_CHARACTERS: Final = 155

STYLE: Final = """
text { font: 13px system-ui, "Helvetica Neue", "Segoe UI", Arial, sans-serif; fill: #24292f }
.title { font-size: 19px; font-weight: 600 }
.quiet, .machine, .note { fill: #656d76 }
.machine { font-size: 11px }
.note { font-style: italic }
.name { font-size: 14px; font-weight: 600 }
.ratio { font-size: 14px; font-weight: 600 }
.met { fill: #1a7f37 }
.missed { fill: #b35900; font-weight: 600 }
.end { text-anchor: end }
.page { fill: #ffffff }
.rule { stroke: #d8dee4 }
.ours { fill: #1f6feb }
.theirs { fill: #b6bfc9 }
.whisker { stroke: #24292f; stroke-opacity: .7; fill: none }
"""


@dataclass(frozen=True)
class Bar:
    """One line of the picture."""

    label: str
    samples: Sequence[float]
    kind: str
    ratio: float | None = None
    target: str = ""
    met: bool | None = None
    note: str = ""


def draw(
    rows: Sequence[Row], machine: Mapping[str, object], path: Path, title: str = "Teller, measured"
) -> None:
    """Write the picture of a table."""
    groups = [list(group) for _, group in groupby(rows, key=_group)]
    foot = textwrap.wrap(_machine(machine), FOOT_CHARACTERS)
    lines = sum(len(_bars(group)) for group in groups)
    foot_at = TOP + len(groups) * (GROUP_HEAD + GROUP_GAP) + lines * LINE
    height = foot_at + len(foot) * FOOT_LINE + MARGIN
    svg = _canvas(height, title)
    _text(svg, title, MARGIN, MARGIN + 12, "title")
    _text(svg, "Bars: medians. Whiskers: lowest to highest.", MARGIN, MARGIN + 32, "quiet")
    _text(svg, "ratio", RATIO_END, MARGIN + 32, "quiet end")
    _text(svg, "target", TARGET_END, MARGIN + 32, "quiet end")
    top = TOP
    for group in groups:
        top = _draw_group(svg, group, top)
    for number, line in enumerate(foot):
        _text(svg, line, MARGIN, foot_at + (number + 1) * FOOT_LINE, "machine")
    ET.indent(svg)
    path.write_text(ET.tostring(svg, encoding="unicode") + "\n", encoding="utf-8")


def met(row: Row) -> bool | None:
    """Return whether a row reaches its target; None when that cannot be told.

    >>> met(Row("", "jobs/s", ours=[30], theirs=[10], target="2x"))
    True
    >>> met(Row("", "ms", ours=[30], target="<= 20 ms"))
    False
    """
    found = re.fullmatch(r"(<=|>=)?\s*([\d.]+)\s*(\w*)", row.target)
    if found is None or not row.ours:
        return None
    reached = row.ratio if found[3] == "x" else statistics.median(row.ours)
    if reached is None:
        return None
    aim = float(found[2])
    return reached <= aim if found[1] == "<=" else reached >= aim


def number(value: float) -> str:
    """Return a figure with as many digits as it deserves.

    >>> [number(value) for value in (24565.2, 123.45, 12.345, 12, 0.5)]
    ['24,565', '123', '12.3', '12', '0.50']
    """
    if value == int(value):
        return f"{value:,.0f}"
    digits = next(digits for digits, least in ((0, 100), (1, 10), (2, -math.inf)) if value >= least)
    return f"{value:,.{digits}f}"


def times(ratio: float) -> str:
    """Return a ratio for reading.

    >>> [times(ratio) for ratio in (24.58, 0.94, 0.0035)]
    ['24.6x', '0.94x', '1/286']
    """
    return f"{number(ratio)}x" if not 0 < ratio < TENTH else f"1/{1 / ratio:,.0f}"


def _group(row: Row) -> tuple[str, str, list[float]]:
    return row.name, row.unit, row.ours


def _bars(group: Sequence[Row]) -> list[Bar]:
    """Return our line, and under it one for each of theirs; a lone row's ratio stands with ours."""
    theirs = []
    for row in group:
        label, _, note = row.against.partition(" (") if not row.theirs else (row.against, "", "")
        theirs.append(
            Bar(label, row.theirs, "theirs", row.ratio, row.target, met(row), note.rstrip(")"))
        )
    ours = Bar("ours", group[0].ours, "ours")
    if len(theirs) > 1:
        return [ours, *theirs]
    only = theirs[0]
    ours = replace(ours, ratio=only.ratio, target=only.target, met=only.met)
    return [ours, replace(only, ratio=None, target="")]


def _draw_group(svg: ET.Element, group: Sequence[Row], top: int) -> int:
    row = group[0]
    ET.SubElement(svg, "path", {"class": "rule", "d": f"M{MARGIN} {top}H{TARGET_END}"})
    less = any(row.target.startswith("<=") for row in group)
    unit = f"{row.unit}, less is better" if less else row.unit
    name = _text(svg, f"{row.name} ", MARGIN, top + 20, "name")
    ET.SubElement(name, "tspan", {"class": "quiet", "dx": "4", "font-weight": "400"}).text = unit
    bars = _bars(group)
    longest = max((max(bar.samples) for bar in bars if bar.samples), default=0) or 1
    top += GROUP_HEAD
    for bar in bars:
        _draw_bar(svg, bar, top, BARS_WIDTH / longest)
        top += LINE
    return top + GROUP_GAP


def _draw_bar(svg: ET.Element, bar: Bar, top: int, scale: float) -> None:
    foot = top + BASELINE
    _text(svg, bar.label, LABEL_END, foot, "end")
    if bar.samples:
        length = statistics.median(bar.samples) * scale
        shape = {"x": str(BARS), "y": str(top), "height": str(BAR), "rx": "2"}
        ET.SubElement(svg, "rect", {"class": bar.kind, "width": f"{max(length, 1):.1f}", **shape})
        low, high = (BARS + edge(bar.samples) * scale for edge in (min, max))
        if len(bar.samples) > 1:
            ET.SubElement(svg, "path", {"class": "whisker", "d": _whisker(low, high, top)})
        _text(svg, number(statistics.median(bar.samples)), high + 8, foot)
    elif bar.note:
        _text(svg, bar.note, BARS, foot, "note")
    if bar.ratio is not None:
        _text(svg, times(bar.ratio), RATIO_END, foot, "ratio end")
    if bar.target:
        verdict = {True: "met", False: "missed", None: ""}[bar.met]
        target = bar.target.replace("<=", "≤").replace(">=", "≥")
        _text(svg, f"{target} {verdict}".strip(), TARGET_END, foot, f"{verdict} end".strip())


def _whisker(low: float, high: float, top: int) -> str:
    middle = top + BAR / 2
    caps = "".join(f"M{x:.1f} {middle - CAP}v{2 * CAP}" for x in (low, high))
    return f"M{low:.1f} {middle}H{high:.1f}{caps}"


def _canvas(height: int, title: str) -> ET.Element:
    size = {"width": str(WIDTH), "height": str(height), "viewBox": f"0 0 {WIDTH} {height}"}
    svg = ET.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", "role": "img", **size})
    ET.SubElement(svg, "title").text = title
    ET.SubElement(svg, "style").text = STYLE
    ET.SubElement(
        svg, "rect", {"class": "page", "width": str(WIDTH), "height": str(height), "rx": "8"}
    )
    return svg


def _text(svg: ET.Element, text: str, x: float, y: float, style: str = "") -> ET.Element:
    places = {"x": f"{x:.1f}".removesuffix(".0"), "y": str(y)}
    element = ET.SubElement(svg, "text", {"class": style, **places} if style else places)
    element.text = text
    return element


def _machine(machine: Mapping[str, object]) -> str:
    return ", ".join(
        f"{name} {value:.1f}" if isinstance(value, float) else f"{name} {value}"
        for name, value in machine.items()
    )
