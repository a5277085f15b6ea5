"""How long each fault was felt, and how long an innocent job had to wait. Pure."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from math import inf
from typing import TYPE_CHECKING

from worker.dev.chaos.faults import GROUP_END, Recovery
from worker.dev.poison import DEEDS
from worker.execution.retry import CRASHES_MAX

if TYPE_CHECKING:
    from uuid import UUID

    from db.dev import JobOutcome
    from worker.dev.chaos.faults import Strike, Targets


class Spans:
    """When each of the innocent jobs was accepted and when it ended, in order of acceptance."""

    def __init__(self, spans: Sequence[tuple[float, float]]) -> None:
        self._spans = spans
        self._accepted = [accepted_at for accepted_at, _ in spans]
        self._ended_by = list(accumulate((finished_at for _, finished_at in spans), max))

    def felt_s(self, at: float) -> float:
        """Return until when after a moment jobs were not final that were accepted before it."""
        before = bisect_right(self._accepted, at)
        return max(0.0, self._ended_by[before - 1] - at) if before else 0.0

    def longest_s(self, outages: "Iterable[tuple[float, float]]") -> float:
        """Return the longest wait of a job from its acceptance on, without the outages in it."""
        merged = list(_merged(outages))
        return max((_beyond(span, merged) for span in self._spans), default=0.0)


def recoveries(
    targets: "Targets", innocents: Spans, poison: "Sequence[JobOutcome]"
) -> dict[str, list[float]]:
    """Return for each kind of fault how long each of its strikes was felt, in seconds."""
    found: dict[str, list[float]] = {}
    for strike in targets.strikes:
        if strike.kind.recovery is not Recovery.OF_POISON:
            found.setdefault(strike.kind.name, []).append(_felt_s(strike, innocents))
    for outcome in poison:
        if outcome.finished_at is not None:
            sent = targets.poisoned[outcome.id]
            lasted_s = outcome.finished_at.timestamp() - sent.sent_at
            found.setdefault(f"poison{GROUP_END}{sent.deed}", []).append(max(0.0, lasted_s))
    return found


def longest_wait_s(targets: "Targets", innocents: Spans) -> float:
    """Return the longest wait of an innocent job beyond the outages."""
    return innocents.longest_s(
        (strike.began_at, strike.ended_at) for strike in targets.strikes if strike.kind.is_outage
    )


def deadly(targets: "Targets") -> "Iterator[UUID]":
    """Return the jobs that were sent to end their processes."""
    for job_id, sent in targets.poisoned.items():
        if DEEDS[sent.deed].exit_code is not None:
            yield job_id


def deaths_max(targets: "Targets", poison: "Sequence[JobOutcome]") -> int:
    """Return how many processes may die of the deadly jobs.

    Crashes are counted in Redis, and told to the record at the next delivery: each time that Redis
    forgets, the count of a job that is under way may begin again.
    """
    ends = {one.id: one.finished_at.timestamp() for one in poison if one.finished_at is not None}
    forgotten = [one for one in targets.strikes if one.kind.forgets_queue]
    chances = 0
    for job_id in deadly(targets):
        sent_at, ended_at = targets.poisoned[job_id].sent_at, ends.get(job_id, inf)
        chances += 1 + sum(one.ended_at > sent_at and one.began_at < ended_at for one in forgotten)
    return CRASHES_MAX * chances


def _felt_s(strike: "Strike", innocents: Spans) -> float:
    if strike.kind.recovery is Recovery.OF_GARBAGE:
        return strike.ended_at - strike.began_at
    return innocents.felt_s(strike.ended_at)


def _merged(outages: "Iterable[tuple[float, float]]") -> "Iterable[tuple[float, float]]":
    """Return the same times without overlaps, in order.

    >>> list(_merged([(5, 7), (1, 3), (2, 4)]))
    [(1, 4), (5, 7)]
    """
    began_at = ended_at = 0.0
    for begin, end in sorted(outages):
        if begin > ended_at:
            if ended_at > began_at:
                yield began_at, ended_at
            began_at = begin
        ended_at = max(ended_at, end)
    if ended_at > began_at:
        yield began_at, ended_at


def _beyond(span: tuple[float, float], outages: "Sequence[tuple[float, float]]") -> float:
    """Return how long a span is without the parts in which there was an outage.

    >>> _beyond((0, 10), [(1, 4), (9, 12)])
    6
    """
    begin, end = span
    first = bisect_right(outages, begin, key=lambda outage: outage[1])
    away = 0.0
    for began_at, ended_at in outages[first:]:
        if began_at >= end:
            break
        away += min(end, ended_at) - max(begin, began_at)
    return end - begin - away
