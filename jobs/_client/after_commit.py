"""Calls after the commit of a SQLAlchemy session, whatever savepoints and rollbacks come between.

SQLAlchemy is imported only inside functions: a caller who has a session has it.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Transaction
    from sqlalchemy.orm import Session, SessionTransaction

_PENDING: Final = "teller_jobs.pending"


@dataclass(slots=True)
class _Pending:
    """A call that happens if and only if a transaction commits."""

    call: "Callable[[], None]"
    transaction: "SessionTransaction"
    """The savepoint it was asked for in, or the session's whole transaction."""
    root: "Transaction"
    """The connection's own transaction: its commit alone makes rows visible to others."""


def call_after_commit(session: "Session", call: "Callable[[], None]") -> None:
    """Call once the session's transaction has committed, and only then.

    Args:
        session: with a statement already executed in its transaction.
        call: must not raise, nor use the session.
    """
    from sqlalchemy import event

    if _PENDING not in session.info:
        session.info[_PENDING] = []
        event.listen(session, "after_commit", _on_commit)
        event.listen(session, "after_transaction_end", _on_end)
    transaction = session.get_nested_transaction() or session.get_transaction()
    root = session.connection().get_transaction()
    if transaction is None or root is None:  # pragma: no cover - a statement has just run in both
        return
    session.info[_PENDING].append(_Pending(call, transaction, root))


def _on_commit(session: "Session") -> None:
    pending: list[_Pending] = session.info[_PENDING]
    savepoint = session.get_nested_transaction()
    if savepoint is not None:
        # Released, not committed: what was done in it now depends on what is around it.
        for one in pending:
            if one.transaction is savepoint:
                one.transaction = _around(savepoint)
        return
    session.info[_PENDING] = []
    for one in pending:
        # Still active: the session was given a connection whose owner has yet to commit, and of
        # that commit nothing is heard here. The relay sends these jobs.
        if not one.root.is_active:
            one.call()


def _on_end(session: "Session", ended: "SessionTransaction") -> None:
    """Forget what was rolled back, or closed without a commit."""
    session.info[_PENDING] = [one for one in session.info[_PENDING] if one.transaction is not ended]


def _around(savepoint: "SessionTransaction") -> "SessionTransaction":
    outer = savepoint
    while outer.parent is not None:
        outer = outer.parent
        if outer.nested:
            break
    return outer
