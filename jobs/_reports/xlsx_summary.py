"""A workbook's first sheet: what the report is about, its figures, and a chart of them."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from jobs._reports.document import Figure
from jobs._reports.xlsx_cells import ACCENT, FONT, INK, QUIET, Styles, write_value

if TYPE_CHECKING:
    from xlsxwriter.workbook import Workbook
    from xlsxwriter.worksheet import Worksheet

    from jobs._reports.document import Chart, Document, Kind, Section

LEFT_OUT: Final = ("period_start", "period_end", "last_day")  # the period says it in words
CHART_ROWS: Final = 15
CHART_COLUMN: Final = 3
CHART_SIZE: Final = {"width": 720, "height": 280}
TEXT: Final = {"name": FONT, "size": 9, "color": QUIET}
GRID: Final = {"visible": True, "line": {"color": "#E4E7EB"}}
A4: Final = 9


class Summary:
    """The sheet, and the charts that are drawn on it at the very end.

    Their numbers are in hidden sheets of their own.
    """

    def __init__(self, workbook: "Workbook", styles: Styles, document: "Document") -> None:
        self._workbook = workbook
        self._styles = styles
        self._charts: list[tuple[int, Section]] = []
        self._sheet: Worksheet = workbook.add_worksheet("Summary")
        self._sheet.hide_gridlines(2)
        self._sheet.set_default_row(17)
        self._sheet.set_column(0, 0, 20)
        self._sheet.set_column(1, 1, 46)
        set_up_page(self._sheet, document)
        self._row = 0
        self._write(document)

    def _write(self, document: "Document") -> None:
        self._sheet.set_row(0, 30)
        self._sheet.write_string(0, 0, document.title, self._styles.get(font_size=20, bold=True))
        self._row = 2
        breaks: list[int] = []
        for figure in (*document.facts, Figure("job_id", "Report", document.job_id, "id")):
            if figure.name not in LEFT_OUT:
                self._add(figure, digits=0)
        for number, section in enumerate(document.sections):
            self._row += 1
            began = self._row
            if number and section.chart:
                breaks.append(began)
            self._add_section(section)
            if section.chart:
                self._charts.append((began, section))
                self._row = max(self._row, began + CHART_ROWS)
        # A chart that a page's end cuts in two is none: each currency begins a page.
        self._sheet.set_h_pagebreaks(breaks)

    def _add_section(self, section: "Section") -> None:
        heading = self._styles.get(
            font_size=13, bold=True, font_color=ACCENT, bottom=1, bottom_color=ACCENT
        )
        self._sheet.set_row(self._row, 24)
        self._sheet.write_string(self._row, 0, section.currency, heading)
        self._sheet.write_blank(self._row, 1, None, heading)
        self._row += 1
        for figure in section.figures:
            self._add(figure, digits=section.digits)

    def _add(self, figure: Figure, *, digits: int) -> None:
        self._sheet.write_string(self._row, 0, figure.label, self._styles.get(font_color=QUIET))
        kind: Kind = "text" if figure.kind == "id" else figure.kind
        style = self._styles.cell(kind, digits, align="left")
        write_value(self._sheet, (self._row, 1), kind, figure.value, style)
        self._row += 1

    def draw_charts(self) -> None:
        """Draw every currency's chart beside its figures."""
        for row, section in self._charts:
            if section.chart:
                drawing = _drawing(self._workbook, self._styles, section, section.chart)
                self._sheet.insert_chart(row, CHART_COLUMN, drawing)


def set_up_page(sheet: "Worksheet", document: "Document") -> None:
    """Make a sheet print as wide as a page, with the report's id at its foot."""
    sheet.set_landscape()
    sheet.set_paper(A4)
    sheet.fit_to_pages(1, 0)
    sheet.set_footer(f"&L&8{document.title}, report {document.job_id}&R&8Page &P of &N")


def _drawing(workbook: "Workbook", styles: Styles, section: "Section", chart: "Chart") -> Any:  # noqa: ANN401 - xlsxwriter carries no types
    steps = chart.style == "steps"
    name, last = _write_points(workbook, styles, section, chart)
    drawing = workbook.add_chart(
        {"type": "scatter", "subtype": "straight"} if steps else {"type": "column"}
    )
    look = (
        {"line": {"color": ACCENT, "width": 1.75}, "marker": {"type": "none"}}
        if steps
        else {"fill": {"color": ACCENT}, "gap": 40}
    )
    drawing.add_series(
        {
            "name": chart.title,
            "categories": [name, 1, 0, last, 0],
            "values": [name, 1, 1, last, 1],
            **look,
        }
    )
    title = {"name": FONT, "size": 11, "bold": True, "color": INK}
    drawing.set_title({"name": f"{chart.title}, {section.currency}", "name_font": title})
    drawing.set_legend({"none": True})
    drawing.set_y_axis(
        {"num_format": "#,##0", "num_font": TEXT, "major_gridlines": GRID, "line": {"none": True}}
    )
    time = {"num_format": "d mmm", "num_font": TEXT, "major_gridlines": {"visible": False}}
    drawing.set_x_axis({**time, **(_time_range(chart) if steps else {"date_axis": True})})
    drawing.set_chartarea({"border": {"none": True}})
    drawing.set_size(CHART_SIZE)
    return drawing


def _write_points(
    workbook: "Workbook", styles: Styles, section: "Section", chart: "Chart"
) -> tuple[str, int]:
    """Write a chart's numbers into a sheet of their own, and return its name and last row."""
    kind: Kind = "time" if chart.style == "steps" else "day"
    name = f"Chart {section.currency}"
    sheet = workbook.add_worksheet(name)
    sheet.hide()  # one can show it; nobody has to leaf past it
    sheet.set_column(0, 1, 24)
    sheet.write_string(0, 0, "Time" if kind == "time" else "Day", styles.get(bold=True))
    sheet.write_string(0, 1, f"{chart.title}, {section.currency}", styles.get(bold=True))
    row = 0
    for at, amount in _corners(chart):
        row += 1
        write_value(sheet, (row, 0), kind, at, styles.cell(kind, 0))
        sheet.write_number(row, 1, float(amount), styles.cell("money", section.digits))
    return name, row


def _corners(chart: "Chart") -> list[tuple[str, str]]:
    """Return the points to join: a balance stays what it was until it changes."""
    if chart.style == "bars":
        return list(chart.points)
    corners = [chart.points[0]]
    for before, after in zip(chart.points, chart.points[1:], strict=False):
        corners += [(after[0], before[1]), after]
    return corners


def _time_range(chart: "Chart") -> dict[str, float]:
    """Return the time axis's ends in Excel's days, so that it does not begin in the year 1900."""
    epoch = datetime(1899, 12, 30, tzinfo=UTC)
    first, last = (
        # As it reads on the wall, like the cells.
        datetime.fromisoformat(chart.points[index][0]).replace(tzinfo=UTC)
        for index in (0, -1)
    )
    days = [(moment - epoch).total_seconds() / 86_400 for moment in (first, last)]
    return {"min": days[0], "max": max(days[1], days[0] + 1 / 86_400)}
