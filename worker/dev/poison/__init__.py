"""Jobs that misbehave in every known way.

`deeds.py` has what they do and how each must end, a table; `kinds.py` makes jobs of it. No worker
but those of `chaos` and of tests knows them, so `jobs/` stays what callers can ask for.
"""

from worker.dev.poison.deeds import DEEDS, Deed
from worker.dev.poison.kinds import JOBS, Poison, PoisonWithTime, poison

__all__ = ["DEEDS", "JOBS", "Deed", "Poison", "PoisonWithTime", "poison"]
