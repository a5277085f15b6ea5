"""The loop: a drop-in `arq.worker.Worker` that is fast and does not lose jobs.

It speaks arq's protocol on arq's keys and knows nothing of PostgreSQL. docs/loop.md has what is
the same, what differs and why, and how a client rings the doorbell.
"""

from .worker import Worker

__all__ = ["Worker"]
