"""What came of it: what was done to the system, and whether the promise held."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson
from rich.table import Table

if TYPE_CHECKING:
    from rich.console import Console

    from db.audit import Report
    from worker.dev.chaos.plan import FaultKind

IDS_SHOWN_MAX: Final = 20


@dataclass
class Logged:
    """What the workers' logs say, counted."""

    events: Counter[str] = field(default_factory=Counter)
    retries: Counter[str] = field(default_factory=Counter)
    """Tries that were rolled back and run again or put back, by SQLSTATE or trouble."""
    rebuilt: int = 0
    """How often a queue was rebuilt from PostgreSQL."""


def read_logs(paths: Iterable[Path]) -> Logged:
    """Count the events in the workers' logs; lines that are not JSON are not counted."""
    logged = Logged()
    for path in paths:
        with path.open("rb") as lines:
            for line in lines:
                if line.startswith(b"{"):
                    _count(logged, line)
    return logged


def _count(logged: Logged, line: bytes) -> None:
    try:
        entry: dict[str, Any] = orjson.loads(line)
    except orjson.JSONDecodeError:
        return  # a worker was killed in the middle of it
    event = str(entry.get("event"))
    logged.events[event] += 1
    if event in {"job.run_again", "job.put_back"}:
        logged.retries[str(entry.get("sqlstate") or entry.get("trouble"))] += 1
    logged.rebuilt += event == "relay.sent" and bool(entry.get("rebuilt"))


@dataclass(frozen=True, slots=True)
class Summary:
    """What was done, and what came of it."""

    seed: int
    orders: int
    seconds: float
    injected: "Counter[FaultKind]"
    left_out: "Sequence[FaultKind]"
    """Kinds of fault that cannot be done on these servers."""
    replies_lost: int
    workers_started: int
    logged: Logged
    repeated: int
    redelivered: int
    refused_twins: int
    live: int
    missing: int
    """Accepted jobs that did not end in the state they must."""
    wrong_balances: Sequence[str]
    """Accounts whose balance is not what the orders make it."""
    idle_in_transaction: int
    leaked_keys: Sequence[str]
    exit_codes: Sequence[int]
    ended_by_themselves: int
    audit: "Report"

    @property
    def faults(self) -> list[str]:
        """What broke the promise; nothing when all is well."""
        checks = {
            f"{self.live} jobs are not final": self.live,
            f"{self.missing} accepted jobs are missing or ended wrongly": self.missing,
            f"wrong balances: {_some(self.wrong_balances)}": self.wrong_balances,
            f"the audit found {self.audit.differences} differences": self.audit.differences,
            f"{self.idle_in_transaction} connections idle in a transaction": (
                self.idle_in_transaction
            ),
            f"keys left in Redis: {_some(self.leaked_keys)}": self.leaked_keys,
            f"workers did not drain: exit codes {list(self.exit_codes)}": any(self.exit_codes),
            f"{self.ended_by_themselves} workers ended by themselves": self.ended_by_themselves,
        }
        return [what for what, is_wrong in checks.items() if is_wrong]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:IDS_SHOWN_MAX])


def show(summary: Summary, console: "Console") -> None:
    """Print the summary."""
    logged = summary.logged
    table = Table("fault", "injected")
    for kind, count in sorted(summary.injected.items()):
        table.add_row(kind, f"{count:,}")
    table.add_row("[bold]all[/]", f"[bold]{summary.injected.total():,}[/]")
    console.print(table)
    if summary.left_out:
        console.print(f"left out, impossible here: {', '.join(summary.left_out)}")
    retries = Table("rolled back and run again", "times")
    for sqlstate, count in logged.retries.most_common():
        retries.add_row(sqlstate, f"{count:,}")
    console.print(retries)
    for line in _lines(summary):
        console.print(line)
    for finding in summary.audit.findings:
        if finding.differences:
            console.print(f"[red]{finding.name}: {', '.join(finding.ids)}[/]")
    for fault in summary.faults:
        console.print(f"[bold red]{fault}[/]")
    if not summary.faults:
        console.print("[bold green]nothing lost, nothing doubled, nothing left behind[/]")
    console.print(f"seed {summary.seed}, {summary.seconds:.1f} s")


def _lines(summary: Summary) -> list[str]:
    logged, audited = summary.logged, summary.audit
    duplicates = logged.events["job.duplicate"]
    return [
        f"{summary.replies_lost:,} replies to COMMIT lost",
        f"{summary.workers_started:,} workers started",
        f"{logged.rebuilt:,} times the queue was rebuilt from PostgreSQL",
        (
            f"{duplicates:,} deliveries absorbed of jobs that had run already "
            f"({summary.redelivered:,} were sent on purpose)"
        ),
        f"{summary.repeated:,} requests repeated with their key: the same job each time",
        f"{summary.refused_twins:,} keys asked for with another payload: refused each time",
        f"{logged.events['job.dead']:,} jobs dead",
        (
            f"{summary.orders:,} transfers ordered; audit of {audited.jobs['accepted']:,} jobs "
            f"and {audited.counts['transfers']:,} transfers: difference {audited.differences}"
        ),
    ]
