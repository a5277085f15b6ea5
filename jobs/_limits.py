"""How many jobs of a kind run at a time, and how many begin in a period, across all workers."""

from dataclasses import dataclass
from datetime import timedelta

PERIOD_MAX = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Rate:
    """So many begin in each period; after a rest, `burst` of them may begin at once."""

    count: int
    per: timedelta = timedelta(seconds=1)
    burst: int = 1

    def __post_init__(self) -> None:
        """Check that it is one."""
        if self.count < 1 or self.burst < 1:
            raise ValueError("a rate and its burst are 1 or more")
        if not timedelta() < self.per <= PERIOD_MAX:
            raise ValueError(f"a rate is per {PERIOD_MAX.days} day at most, and more than 0")

    @property
    def interval_ms(self) -> float:
        """How long after one the next may begin, on average."""
        return self.per.total_seconds() * 1000 / self.count

    @property
    def tolerance_ms(self) -> float:
        """How much too early one may begin, for the sake of the burst."""
        return (self.burst - 1) * self.interval_ms
