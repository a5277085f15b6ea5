"""How a worker process is, over HTTP: `/livez`, `/readyz`, `/metrics`, `/status`.

The event loop leaves what it knows in memory (`pulse.py`, `condition.py`, `census.py`), and a
thread of its own answers from there (`server.py`, `pages.py`): a blocked loop cannot keep it from
saying so, and no request ever touches a database. With several processes the supervisor answers
for all of them (`gateway.py`).
"""

from worker.monitoring.health import Health

__all__ = ["Health"]
