"""What came of the demo, in a form that a person understands."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.table import Table

from worker.tables import add_row

if TYPE_CHECKING:
    from rich.console import Console

    from db.audit import Report
    from db.dev import Tally
    from worker.dev.demo.pay_day import PayDay


@dataclass(frozen=True, slots=True)
class Summary:
    """What came of the demo."""

    requests: int
    """Requests made, the repeated ones included."""
    tally: "Tally"
    events: dict[str, int]
    """The worker's events, counted by name."""
    balances: dict[str, int]
    """Σ balance by currency over the whole ledger, in minor units."""
    audit: "Report"
    pay_day: "PayDay"
    reports: Sequence[str]
    seconds: float

    @property
    def is_good(self) -> bool:
        """Whether the books balance and nothing is missing."""
        return (
            self.tally.live == 0
            and not any(row.state == "dead" for row in self.tally.rows)
            and not any(self.balances.values())
            and self.audit.differences == 0
        )


def show(summary: Summary, console: "Console") -> None:
    """Print the summary."""
    duplicates = summary.requests - summary.tally.accepted
    console.print(
        f"\n[bold]{summary.requests:,} requests[/], {duplicates:,} of them repeated: "
        f"[bold]{summary.tally.accepted:,} jobs accepted[/]"
    )
    console.print(_outcomes(summary))
    console.print(
        f"{summary.events.get('job.duplicate', 0):,} deliveries of jobs that had run already: "
        "absorbed, no effect twice"
    )
    console.print(
        f"{summary.events.get('job.run_again', 0):,} tries rolled back by a conflict and run again"
    )
    console.print(_sums(summary))
    day = summary.pay_day
    console.print(
        f"pay day: a batch of {day.paid + day.rejected} salaries, {day.rejected} of them rejected, "
        f"and its report; {day.dividends} dividends in slices; {day.told} webhook with a "
        "signature that fits"
    )
    for url in summary.reports:
        console.print(f"report  {url}", soft_wrap=True)
    verdict = "[bold green]the books balance, nothing is missing[/]"
    if not summary.is_good:
        verdict = "[bold red]something is wrong: run `python -m worker audit`[/]"
    console.print(
        f"\naudit of {summary.audit.jobs['accepted']:,} jobs and "
        f"{summary.audit.counts['transfers']:,} transfers, "
        f"difference {summary.audit.differences}: {verdict}"
    )
    console.print(f"{summary.seconds:.1f} s")


def _outcomes(summary: Summary) -> Table:
    table = Table("kind", "became", "because", "jobs")
    table.columns[3].justify = "right"
    for row in summary.tally.rows:
        add_row(table, row.kind, row.state, row.code or "", f"{row.count:,}")
    return table


def _sums(summary: Summary) -> Table:
    table = Table("currency", "Σ of all balances")
    table.columns[1].justify = "right"
    for currency, total in summary.balances.items():
        add_row(table, currency, f"{total:,}", style="red" if total else "")
    return table
