"""Breaks everything on purpose while money moves, then asks the audit what became of it.

`plan.py` says which faults strike when, `faults.py` what each of them does, `load.py` what work
there is meanwhile, `fleet.py` keeps the workers, `proxy.py` loses the replies to COMMIT. `run.py`
puts them together, and `summary.py` says whether the promise held.
"""

from worker.dev.chaos.plan import Kind, schedule
from worker.dev.chaos.run import Wishes, run
from worker.dev.chaos.summary import Summary, show

__all__ = ["Kind", "Summary", "Wishes", "run", "schedule", "show"]
