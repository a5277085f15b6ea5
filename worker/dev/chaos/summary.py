"""What came of it: what was done to the system, and whether the promise held."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import orjson
from rich.table import Table

from worker.dev.poison import DEEDS
from worker.tables import add_row

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from db.audit import Report
    from worker.dev.chaos.pay_days import PayDaysEnd

IDS_SHOWN_MAX: Final = 20
INNOCENT_WAIT_MAX_S: Final = 120.0
"""From its acceptance on, beyond the outages, no innocent job may wait longer for its end."""
POISONS_CODES: Final = {deed.exit_code for deed in DEEDS.values()} - {None}


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
    left_out: "Sequence[str]"
    """Kinds of fault that cannot be done on these servers."""
    recoveries: "Mapping[str, Sequence[float]]"
    """For each kind of fault how long each of them was felt, in seconds."""
    longest_wait_s: float
    """Of an innocent job, beyond the outages."""
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
    pay_days: "PayDaysEnd"
    poisoned: int
    """Jobs that were sent to misbehave."""
    deadly: int
    """Those of them that were to end their processes."""
    deaths_max: int
    """How many processes may die of them."""
    wrong_poison: Sequence[str]
    """Those that did not end as they must, and how they did."""
    garbage: int
    """Messages that can be no job, and had an id."""
    garbage_in_record: int
    queue_was_lost: bool
    """Whether Redis forgot what it alone had."""
    idle_in_transaction: int
    left_locks: int
    """Locks of jobs that had ended, on the connections of workers."""
    leaked_keys: Sequence[str]
    exit_codes: Sequence[int]
    deaths: Counter[int]
    """The exit codes of workers that ended and were not killed."""
    audit: "Report"

    @property
    def injected(self) -> int:
        """How many faults were done."""
        return sum(map(len, self.recoveries.values()))

    @property
    def died_of_poison(self) -> int:
        """How many worker processes did."""
        return sum(count for code, count in self.deaths.items() if code in POISONS_CODES)

    @property
    def ended_by_themselves(self) -> list[int]:
        """The exit codes of workers that nobody and nothing ended."""
        return [code for code in self.deaths.elements() if code not in POISONS_CODES]

    @property
    def lost_garbage(self) -> int:
        """How much garbage is not in the record, though Redis forgot nothing."""
        return 0 if self.queue_was_lost else self.garbage - self.garbage_in_record

    @property
    def faults(self) -> list[str]:
        """What broke the promise, with what to look at; nothing when all is well."""
        checks = {
            f"{self.live} jobs are not final: see `jobs list --state queued`": self.live,
            f"{self.missing} accepted jobs are missing or ended wrongly": self.missing,
            f"wrong balances: {_some(self.wrong_balances)}": self.wrong_balances,
            f"pay days: {'; '.join(self.pay_days.wrong)}": self.pay_days.wrong,
            f"the audit found {self.audit.differences} differences": self.audit.differences,
            (
                f"a job waited {self.longest_wait_s:.0f} s beyond the outages, more than "
                f"{INNOCENT_WAIT_MAX_S:.0f} s"
            ): self.longest_wait_s > INNOCENT_WAIT_MAX_S,
            f"poison ended otherwise than it must: {_some(self.wrong_poison)}": self.wrong_poison,
            (
                f"{self.died_of_poison} workers died of {self.deadly} deadly jobs, "
                f"{self.deaths_max} at most"
            ): self.died_of_poison > self.deaths_max,
            f"{self.lost_garbage} messages of garbage are not in the record": self.lost_garbage,
            f"{self.idle_in_transaction} connections idle in a transaction": (
                self.idle_in_transaction
            ),
            f"{self.left_locks} locks of jobs that had ended": self.left_locks,
            f"keys left in Redis: {_some(self.leaked_keys)}": self.leaked_keys,
            f"workers did not drain: exit codes {list(self.exit_codes)}": any(self.exit_codes),
            f"workers ended by themselves: exit codes {self.ended_by_themselves}": (
                self.ended_by_themselves
            ),
        }
        return [what for what, is_wrong in checks.items() if is_wrong]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:IDS_SHOWN_MAX])


def show(summary: Summary, console: "Console") -> None:
    """Print the summary."""
    console.print(_faults_table(summary))
    if summary.left_out:
        console.print(f"left out, impossible here: {', '.join(summary.left_out)}")
    retries = _table("rolled back and run again", "times")
    for sqlstate, count in summary.logged.retries.most_common():
        add_row(retries, sqlstate, f"{count:,}")
    console.print(retries)
    for line in _lines(summary):
        console.print(line, markup=False)
    for finding in summary.audit.findings:
        if finding.differences:
            console.print(f"{finding.name}: {', '.join(finding.ids)}", style="red", markup=False)
    for fault in summary.faults:
        console.print(fault, style="bold red", markup=False)
    if not summary.faults:
        console.print("[bold green]nothing lost, nothing doubled, nothing left behind[/]")
    console.print(f"seed {summary.seed}, {summary.seconds:.1f} s")


def _faults_table(summary: Summary) -> Table:
    """Return what was done how often, and for how long it was felt."""
    table = _table("fault", "injected", "recovery, median", "longest")
    for kind, felt_s in sorted(summary.recoveries.items()):
        times = f"{median(felt_s):.1f} s", f"{max(felt_s):.1f} s"
        add_row(table, kind, f"{len(felt_s):,}", *times)
    kinds = f"{len(summary.recoveries)} kinds"
    add_row(table, kinds, f"{summary.injected:,}", "", "", style="bold")
    return table


def _table(first: str, *numbers: str) -> Table:
    table = Table(first)
    for name in numbers:
        table.add_column(name, justify="right")
    return table


def _lines(summary: Summary) -> list[str]:
    logged, audited, paid = summary.logged, summary.audit, summary.pay_days
    duplicates = logged.events["job.duplicate"]
    return [
        f"{summary.replies_lost:,} replies to COMMIT lost",
        (
            f"{summary.workers_started:,} workers started; {summary.died_of_poison:,} died of "
            f"{summary.deadly:,} deadly jobs"
        ),
        f"{logged.rebuilt:,} times the queue was rebuilt from PostgreSQL",
        (
            f"{duplicates:,} deliveries absorbed of jobs that had run already "
            f"({summary.redelivered:,} were sent on purpose)"
        ),
        f"{summary.repeated:,} requests repeated with their key: the same job each time",
        f"{summary.refused_twins:,} keys asked for with another payload: refused each time",
        (
            f"{summary.poisoned:,} poison jobs, {len(summary.wrong_poison):,} ended otherwise than "
            f"they must; {summary.garbage_in_record:,} of {summary.garbage:,} messages of garbage "
            "are in the record"
        ),
        (
            f"{paid.payouts:,} payouts, each a batch with its report, and {paid.errands:,} errands "
            f"in slices; {paid.messages:,} ends told in {paid.deliveries:,} messages, "
            f"{paid.refused:,} of which were refused at first"
        ),
        (
            f"no innocent job waited longer than {summary.longest_wait_s:.1f} s beyond the outages "
            f"({INNOCENT_WAIT_MAX_S:.0f} s at most)"
        ),
        (
            f"{summary.orders:,} transfers ordered; audit of {audited.jobs['accepted']:,} jobs "
            f"and {audited.counts['transfers']:,} transfers: difference {audited.differences}"
        ),
    ]
