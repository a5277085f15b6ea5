"""Payloads with which your jobs complete, for the tests that every job inherits: yours to fill."""

from tests.bank.kit import open_account
from worker.cli.contract.jobs_page import example_of


async def example_payload(job, sessions):
    """Return the kind's own example, on accounts that exist."""
    example = example_of(job.payload)
    for name in ("from_account", "to_account", "account"):
        if name in example:
            example[name] = str(await open_account(sessions, balance="100.00"))
    return example
