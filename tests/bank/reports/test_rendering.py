"""What the formats look like to whoever opens them; and the same report has the same bytes."""

import csv
import io
import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import openpyxl
import pypdf
import pytest

from db.bank.reports import (
    CurrencyVolume,
    DayVolume,
    LargeTransfer,
    Statement,
    TransferVolume,
)
from jobs._reports import (
    Issuer,
    IssuerError,
    as_csv,
    as_json,
    as_pdf,
    as_xlsx,
    pdf_tables,
    transfer_volume,
)
from jobs._reports.document import Chart, Document, Figure, Section
from jobs._reports.limits import PDF_LINES_MAX, refusal
from jobs._reports.pdf_chart import chart_of, round_ticks
from jobs._reports.pdf_text import human
from jobs._reports.pdf_widths import scale_of, widths_of
from jobs._reports.period import in_words, last_day
from jobs._reports.statement import COLUMNS, document_of

WRITERS = {"json": as_json, "xlsx": as_xlsx, "pdf": as_pdf}
NAMES = ("=1+1", "#eval(1)", "*bold*", "Zoë", "李雷", "@x", '"quoted", comma', "<b>&amp;</b>")


def entry(number, name, *, balance="1234567.89"):
    return [
        *("entry", "EUR", str(number), "2026-11-10T10:26:14.634401+01:00"),
        *("03e1cb1a-919c-494a-bb26-aebccddbb69f", "Transfer", "user:x:EUR", name),
        *("12.50", "", balance),
    ]


def statement(lines, *, columns=COLUMNS, digits=2):
    def row(line, debit="", credit="", balance=""):
        return (line, "EUR", "", "", "", "", "", "", debit, credit, balance)

    return Document(
        report="account_statement",
        title="Account statement",
        job_id="0f86802b-60ba-4ce3-8add-229480553f50",
        timezone="Europe/Berlin",
        facts=(
            Figure("holder", "Holder", "Zoë"),
            Figure("period", "Period", "10 November 2026"),
            Figure("period_start", "From", None, "time"),
            Figure("period_end", "Until before", "2026-11-11T00:00:00+01:00", "time"),
            Figure("last_day", "Last day", "2026-11-10", "day"),
        ),
        columns=columns,
        sections=(
            Section(
                currency="EUR",
                digits=digits,
                lines=lines,
                figures=(
                    Figure("opening_balance", "Opening balance", "1000.00", "money"),
                    Figure("credits", "Money in", "0.00", "money"),
                    Figure("debits", "Money out", "12.50", "money"),
                    Figure("closing_balance", "Closing balance", "-987.50", "money"),
                ),
                before=(row("opening", balance="1000.00"),),
                after=(row("total", "12.50", "0.00"), row("closing", balance="-987.50")),
                chart=Chart(
                    "Balance",
                    "steps",
                    (("2026-11-10T10:00:00+01:00", "1.00"), ("2026-11-10T11:00:00+01:00", "2.50")),
                ),
            ),
        ),
    )


def volume():
    """Two days in two currencies; the document and its lines."""
    first = datetime(2026, 11, 9, tzinfo=UTC)
    at = first.replace(hour=10, minute=26, second=14, microsecond=634_401)
    days = (
        DayVolume(0, 2, 1_500, 500, 1_000, 1_500, 0, 1, 0, 117, 118, 4, 1_000),
        DayVolume(1, 1, 250, 250, 250, 0, 0, 2, 3, None, None, 2, 1_500),
    )
    largest = (
        LargeTransfer(UUID(int=1), at, "world:EUR", "user:x:EUR", 1_000, payee_name="zoë"),
        LargeTransfer(UUID(int=2), at + timedelta(hours=1), "world:EUR", "=1+1", 500),
    )
    sums = TransferVolume(
        tuple(first + timedelta(days=day) for day in range(3)),
        (
            CurrencyVolume("EUR", 2, days, {"insufficient_funds": 3}, largest),
            CurrencyVolume("JPY", 0, (DayVolume(0), DayVolume(1, rejected=1)), {"too_late": 1}, ()),
        ),
    )
    document = transfer_volume.document_of(sums, job_id=UUID(int=7), timezone=UTC)
    lines = transfer_volume.lines_of(sums, timezone=UTC).decode()
    return document, list(csv.reader(io.StringIO(lines)))


def written(format_, document, lines, folder):
    target = folder / f"report.{format_}"
    count = []
    WRITERS[format_].write(document, iter(lines), target, lambda: count.append(1))
    assert len(count) == len(lines)
    return target


@pytest.fixture
def lines():
    return [entry(number, name) for number, name in enumerate(NAMES, start=1)]


@pytest.mark.parametrize("format_", WRITERS)
def test_the_same_report_has_the_same_bytes(format_, lines, tmp_path):
    document = statement(len(lines))
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    assert (
        written(format_, document, lines, one).read_bytes()
        == written(format_, document, lines, two).read_bytes()
    )


def test_a_document_survives_the_way_to_the_other_process():
    for document in (statement(3), volume()[0]):
        assert Document.from_json(json.loads(json.dumps(document.to_json()))) == document


def test_json_holds_every_line_with_amounts_as_strings(lines, tmp_path):
    report = json.loads(written("json", statement(len(lines)), lines, tmp_path).read_text())

    (section,) = report["sections"]
    assert report["report"] == "account_statement"
    assert report["holder"] == "Zoë"
    assert section["opening_balance"] == "1000.00"
    assert section["lines"][0] == {
        "entry": 1,
        "posted_at": "2026-11-10T10:26:14.634401+01:00",
        "transfer_id": "03e1cb1a-919c-494a-bb26-aebccddbb69f",
        "description": "Transfer",
        "counterparty": "user:x:EUR",
        "counterparty_name": "=1+1",
        "debit": "12.50",
        "credit": None,
        "balance": "1234567.89",
    }
    assert [line["counterparty_name"] for line in section["lines"]] == list(NAMES)


def test_json_without_a_line_is_json(tmp_path):
    report = json.loads(written("json", statement(0), [], tmp_path).read_text())
    assert report["sections"][0]["lines"] == []


def test_a_day_of_a_volume_is_compared_with_the_day_before(tmp_path):
    document, lines = volume()
    section, without = json.loads(written("json", document, lines, tmp_path).read_text())[
        "sections"
    ]

    names = ("transfers", "transfers_change", "total", "total_change", "first_entry", "last_entry")
    assert [[line[name] for name in names] for line in section["lines"]] == [
        [2, "-50.0", "15.00", "50.0", 117, 118],
        [1, "-50.0", "2.50", "-83.3", None, None],
    ]
    assert [line["total_change"] for line in without["lines"]] == [None, None]


def test_json_has_the_largest_transfers_beside_the_lines(tmp_path):
    document, lines = volume()
    section, without = json.loads(written("json", document, lines, tmp_path).read_text())[
        "sections"
    ]
    assert section["largest_transfers"][0] == {
        "posted_at": "2026-11-09T10:26:14.634401+00:00",
        "transfer_id": str(UUID(int=1)),
        "from_account": "world:EUR",
        "from_name": None,
        "to_account": "user:x:EUR",
        "to_name": "zoë",
        "amount": "10.00",
    }
    assert [line["amount"] for line in section["largest_transfers"]] == ["10.00", "5.00"]
    assert without["largest_transfers"] == []


def test_a_csv_of_volume_is_one_table_without_the_largest_transfers():
    document, lines = volume()
    text = (as_csv.head_of(document) + as_csv.tail_of(document)).decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert {len(row) for row in rows} == {len(lines[0])}
    assert [(row["line"], row["first_entry"], row["last_entry"]) for row in rows] == [
        ("total", "117", "118"),
        ("total", "", ""),
    ]


def test_a_workbook_has_a_sheet_of_the_largest_transfers(tmp_path):
    document, lines = volume()
    book = openpyxl.load_workbook(written("xlsx", document, lines, tmp_path))

    assert book.sheetnames[:3] == ["Summary", "Days", "Largest transfers"]
    rows = [[cell.value for cell in row] for row in book["Largest transfers"].iter_rows()]
    assert rows[0] == [
        *("Currency", "Posted at (UTC)", "Transfer"),
        *("From", "From, by name", "To", "To, by name", "Amount"),
    ]
    assert [row[3:] for row in rows[1:]] == [
        ["world:EUR", None, "user:x:EUR", "zoë", 10],
        ["world:EUR", None, "=1+1", None, 5],
    ]
    assert book["Largest transfers"]["F3"].data_type == "s"


def test_a_page_lists_the_largest_transfers_under_the_days(tmp_path):
    document, lines = volume()
    reader = pypdf.PdfReader(written("pdf", document, lines, tmp_path))
    text = " ".join(" ".join(page.extract_text() for page in reader.pages).split())
    days, largest = text.split("Largest transfers, EUR")
    assert "Mon 09 Nov 2026" in days
    for words in ("2026-11-09 10:26 Outside world zoë", "=1+1", str(UUID(int=2)), "10.00"):
        assert words in largest
    assert "Largest transfers" not in largest  # nothing moved in JPY


def test_csv_opens_with_the_balance_and_closes_with_the_totals():
    document = statement(0)
    text = (as_csv.head_of(document) + as_csv.tail_of(document)).decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [(row["line"], row["debit"], row["balance"]) for row in rows] == [
        ("opening", "", "1000.00"),
        ("total", "12.50", ""),
        ("closing", "", "-987.50"),
    ]


def test_a_workbook_holds_numbers_as_numbers_and_names_as_names(lines, tmp_path):
    book = openpyxl.load_workbook(written("xlsx", statement(len(lines)), lines, tmp_path))

    assert book.sheetnames == ["Summary", "Entries", "Chart EUR"]
    assert book["Chart EUR"].sheet_state == "hidden"
    rows = list(book["Entries"].iter_rows())
    assert [cell.value for cell in rows[0]][:4] == [
        *("Line", "Currency", "Entry", "Posted at (Europe/Berlin)"),
    ]
    assert rows[1][10].value == 1000
    assert rows[1][10].number_format == "#,##0.00;[Red]-#,##0.00"
    assert rows[2][3].value == datetime(2026, 11, 10, 10, 26, 14, 634000)  # noqa: DTZ001 - a cell's
    assert [row[7].value for row in rows[2:-2]] == list(NAMES)
    assert {row[7].data_type for row in rows[2:-2]} == {"s"}
    assert rows[-1][10].value == -987.5
    assert book.properties.created == datetime(2026, 11, 10, 23, 0)  # noqa: DTZ001 - the period's end
    assert book["Entries"].freeze_panes == "A2"
    assert len(book["Summary"]._charts) == 1


def test_an_amount_with_more_digits_than_excel_keeps_is_written_as_text(tmp_path):
    huge = "92233720368547758.07"
    path = written("xlsx", statement(1), [entry(1, "x", balance=huge)], tmp_path)
    assert openpyxl.load_workbook(path)["Entries"]["K3"].value == huge


def test_a_workbook_goes_on_in_another_sheet_when_one_is_full(monkeypatch, tmp_path):
    monkeypatch.setattr(as_xlsx, "ROWS_MAX", 10)
    lines = [entry(number, "x") for number in range(1, 21)]
    book = openpyxl.load_workbook(written("xlsx", statement(20), lines, tmp_path))

    sheets = [book[name] for name in book.sheetnames if name.startswith("Entries")]
    assert [sheet.title for sheet in sheets] == ["Entries", "Entries 2", "Entries 3"]
    assert [sheet.max_row for sheet in sheets] == [10, 10, 6]
    assert {sheet["A1"].value for sheet in sheets} == {"Line"}
    found = [row[2].value for sheet in sheets for row in sheet.iter_rows(min_row=2)]
    assert [number for number in found if number is not None] == list(range(1, 21))


def test_a_page_shows_names_as_they_are_and_amounts_as_people_write_them(lines, tmp_path):
    reader = pypdf.PdfReader(written("pdf", statement(len(lines)), lines, tmp_path))
    text = " ".join("\n".join(page.extract_text() for page in reader.pages).split())

    for words in ("Account statement", "Zoë", "#eval(1)", "*bold*", "<b>&amp;</b>", "=1+1"):
        assert words in text
    for amount in ("1,234,567.89", "1,000.00", "12.50", "\N{MINUS SIGN}987.50"):
        assert amount in text
    assert "Page 1 of 1" in text
    assert "report 0f86802b-60ba-4ce3-8add-229480553f50" in text


def test_a_long_page_repeats_its_heading(tmp_path):
    lines = [entry(number, "x") for number in range(1, 101)]
    reader = pypdf.PdfReader(written("pdf", statement(100), lines, tmp_path))
    assert len(reader.pages) == 3
    assert all("Money out" in page.extract_text() for page in reader.pages)


def test_a_page_begins_with_whose_it_is_and_what_was_brought_forward(tmp_path):
    lines = [entry(number, "x", balance=f"{number}.00") for number in range(1, 101)]
    reader = pypdf.PdfReader(written("pdf", statement(100), lines, tmp_path))
    first, *others = [" ".join(page.extract_text().split()) for page in reader.pages]

    assert "Brought forward" not in first
    assert others
    for page in others:
        head, rows = page.split("Money out", 1)
        brought = re.search(r"Zoë .*Brought forward (\d+\.00) EUR", head)
        assert brought, head
        assert f" {int(brought[1][:-3]) + 1}.00" in rows.split("Transfer to x")[1]


def test_a_page_can_be_read_aloud(tmp_path):
    document, lines = volume()
    catalog: Any = pypdf.PdfReader(written("pdf", document, lines, tmp_path)).trailer["/Root"]
    assert catalog["/MarkInfo"]["/Marked"]
    assert catalog["/Lang"].startswith("en")
    told = [str(element.get("/Alt", "")) for element in _elements(catalog["/StructTreeRoot"])]
    assert any("Volume per day in EUR: between 2.50 and 15.00" in words for words in told)


def _elements(node):
    """Every element beneath a node of the tree that a screen reader walks."""
    node = node.get_object() if hasattr(node, "get_object") else node
    if isinstance(node, list):
        for child in node:
            yield from _elements(child)
    elif isinstance(node, dict):
        yield node
        if "/K" in node:
            yield from _elements(node["/K"])


def test_days_without_a_transfer_or_a_refusal_are_one_line():
    def day(number, transfers, rejected="0"):
        return {"day": f"2026-11-{number:02}", "transfers": transfers, "rejected": rejected}

    days = [day(1, "0"), day(2, "3"), day(3, "0"), day(4, "0"), day(5, "0", "1"), day(6, "0")]
    told = [pdf_tables._day(line) for line in pdf_tables.fold_quiet_days(days)]
    assert told == [
        "Sun 01 Nov 2026",
        "Mon 02 Nov 2026",
        "Tue 03 Nov 2026 – Wed 04 Nov 2026",
        "Thu 05 Nov 2026",
        "Fri 06 Nov 2026",
    ]


def test_several_currencies_begin_with_a_line_of_each_and_one_with_none(tmp_path):
    document, lines = volume()
    page = as_pdf.page_of(document, iter(lines), lambda: None)
    assert page["summary"] == {
        "heads": [
            *("Currency", "Transfers", "Total", "Deposits", "Withdrawals"),
            *("Largest transfer", "Rejected"),
        ],
        "rows": [
            ["EUR", "3", "17.50", "15.00", "0.00", "10.00", "3"],
            ["JPY", "0", "0", "0", "0", "0", "1"],
        ],
    }
    assert as_pdf.page_of(statement(0), iter([]), lambda: None)["summary"] is None


def test_columns_are_as_wide_as_the_widest_text_of_any_currency_and_fit_the_page():
    columns = pdf_tables.STATEMENT.columns
    short = widths_of(columns, [[""] * len(columns)])
    long = widths_of(columns, [[""] * 5 + ["9" * 30], [""] * 6])
    assert long[:5] == short[:5]
    assert long[5] > 30 * 1.5
    assert scale_of(short, landscape=False) == 1
    assert scale_of([*long, 100.0], landscape=False) * sum([*long, 100.0]) == pytest.approx(174)


def test_amounts_too_wide_for_a_page_make_its_letters_smaller_and_leave_none_outside(tmp_path):
    line = entry(1, "x", balance="9" * 60 + ".00")
    line[8] = "9" * 60
    page = as_pdf.page_of(statement(1), iter([line]), lambda: None)
    assert page["scale"] < 1
    assert sum(column["width"] for column in page["columns"]) == pytest.approx(174)


def test_a_currency_whose_sides_differ_would_be_told_by_how_much():
    sides = {
        "closing_debit": Figure("closing_debit", "", "10.00", "money"),
        "closing_credit": Figure("closing_credit", "", "12.50", "money"),
    }
    told = as_pdf._proof(pdf_tables.TRIAL_BALANCE, sides)
    assert told == "Debits 10.00, credits 12.50: difference \N{MINUS SIGN}2.50"


def test_the_issuer_stands_at_the_head_with_a_logo(tmp_path):
    logo = tmp_path / "logo.svg"
    logo.write_text('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>')
    issuer = Issuer.from_settings("Bank *of* Examples| 1 Sample Street |", str(logo))
    issuer.lay_logo(tmp_path)
    document = replace(statement(0), issuer=issuer.lines, logo=issuer.logo_name)
    text = pypdf.PdfReader(written("pdf", document, [], tmp_path)).pages[0].extract_text()
    assert "Bank *of* Examples" in text
    assert "1 Sample Street" in text


@pytest.mark.parametrize(
    ("issuer", "logo", "words"),
    [
        ("a|b|c|d|e|f|g", "", "TELLER_REPORTS_ISSUER: at most 6 lines"),
        ("", "/nowhere/logo.svg", "TELLER_REPORTS_LOGO: No such file"),
        ("", "/etc/hostname", "TELLER_REPORTS_LOGO: give a file that ends with .svg, .png or .jpg"),
    ],
)
def test_an_issuer_that_cannot_be_shown_is_refused_at_start(issuer, logo, words):
    with pytest.raises(IssuerError, match=re.escape(words)):
        Issuer.from_settings(issuer, logo)


def test_a_balance_is_drawn_from_the_period_s_first_moment_to_its_last():
    start, end = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 11, 3, tzinfo=UTC)
    one = Statement(
        *(UUID(int=1), "user:x:EUR", "x", "EUR", 2, start, end, 100, 0, 50, 0, 1, 7, 7),
    )
    moved = start.replace(hour=12)
    document = document_of(one, [(moved, 150)], job_id=UUID(int=7), timezone=UTC)
    chart = document.sections[0].chart
    assert chart
    assert chart.points == (
        (start.isoformat(), "1.00"),
        (moved.isoformat(), "1.50"),
        ("2026-11-02T23:59:59+00:00", "1.50"),
    )


def test_a_balance_is_never_drawn_back_in_time():
    start = datetime(2026, 11, 1, tzinfo=UTC)
    one = Statement(
        *(UUID(int=1), "user:x:EUR", "x", "EUR", 2, start, start + timedelta(seconds=9)),
        *(0, 0, 50, 0, 1, 7, 7),
    )
    late = start + timedelta(seconds=8.7)
    chart = document_of(one, [(late, 50)], job_id=UUID(int=7), timezone=UTC).sections[0].chart
    assert chart
    assert [at for at, _ in chart.points] == sorted(at for at, _ in chart.points)
    assert chart.points[-1] == (late.isoformat(), "0.50")


def test_a_format_refuses_what_it_cannot_serve_and_says_what_can():
    assert refusal(PDF_LINES_MAX, "pdf") is None
    assert refusal(10**9, "csv") is None
    message = refusal(PDF_LINES_MAX + 1, "pdf")
    assert message is not None
    assert "3,001 lines, a pdf at most 3,000" in message
    assert "csv" in message


@pytest.mark.parametrize(
    ("kind", "text", "read"),
    [
        ("money", "1234567.5", "1,234,567.5"),
        ("money", "-0.01", "\N{MINUS SIGN}0.01"),
        ("count", "1000", "1,000"),
        ("percent", "12.3", "+12.3 %"),
        ("day", "2026-11-10", "Tue 10 Nov 2026"),
        ("money", "", ""),
    ],
)
def test_values_read_as_people_write_them(kind, text, read):
    assert human(kind, text) == read


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0, 9_999_999), (-250, 10), (0, 0), (0, 0.01), (-5, -1)]
)
def test_ticks_are_round_and_enclose_what_is_drawn(low, high):
    ticks = round_ticks(min(0, low), max(0, high))
    assert ticks[0] <= low
    assert ticks[-1] >= high
    assert 2 <= len(ticks) <= 7


def test_a_chart_stays_within_its_frame():
    for style in ("steps", "bars"):
        points = tuple((f"2026-11-{day:02}", str(Decimal(day - 15))) for day in range(1, 29))
        drawn = chart_of(Chart("Balance", style, points), "EUR")
        assert all(0 <= share <= 1 for point in drawn["points"] for share in point)
        assert all(0 <= x <= 1 for x, _ in drawn["x_ticks"])


def test_a_period_reads_as_days_and_to_the_second_where_a_day_is_not_over():
    day = datetime(2026, 11, 10, tzinfo=UTC)
    assert in_words(None, day, UTC) == "Until 9 November 2026"
    assert in_words(day.replace(day=9), day, UTC) == "9 November 2026"
    assert in_words(day.replace(day=1), day, UTC) == "1 November 2026 to 9 November 2026"
    assert in_words(None, day.replace(hour=8), UTC) == "Until 10 November 2026, 08:00:00"
    assert last_day(day, UTC).isoformat() == "2026-11-09"
