"""Breaks everything on purpose while money moves, then audits the books.

`faults/` has every kind of fault in a table, `plan.py` says which of them strike when, `doors.py`
how work comes in meanwhile, `fleet.py` keeps the workers, `proxy.py` stands before the servers.
`run.py` puts them together, `recovery.py` says how long each fault was felt, and `summary.py`
whether the promise held.
"""

from worker.dev.chaos.faults import KINDS, UnknownFaultError, find
from worker.dev.chaos.plan import schedule
from worker.dev.chaos.run import Options, run
from worker.dev.chaos.summary import Summary, show

__all__ = ["KINDS", "Options", "Summary", "UnknownFaultError", "find", "run", "schedule", "show"]
