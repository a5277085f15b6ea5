"""Breaks everything on purpose while money moves, then audits the books.

`plan.py` says which faults strike when, `faults.py` what each of them does, `doors.py` how work
comes in meanwhile, `fleet.py` keeps the workers, `proxy.py` loses the replies to COMMIT. `run.py`
puts them together, and `summary.py` says whether the promise held.
"""

from worker.dev.chaos.plan import FaultKind, schedule
from worker.dev.chaos.run import Options, run
from worker.dev.chaos.summary import Summary, show

__all__ = ["FaultKind", "Options", "Summary", "run", "schedule", "show"]
