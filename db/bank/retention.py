"""What the bank never forgets, whatever the kinds of its jobs declare."""

from typing import Final

KEPT: Final = """
    kind IN ('create_user', 'transfer_funds')
    OR EXISTS (SELECT FROM transfers t WHERE t.id = jobs.id)
"""
"""A condition on `jobs`: a forgotten transfer could be posted again under the same id, and the
audit looks for the job of every transfer."""
