"""The store: one transaction's view of the database, an attribute per aggregate."""

from typing import TYPE_CHECKING

from db.audit import Audit
from db.bank.ledger import Ledger
from db.bank.reports import Reports
from db.bank.retention import KEPT
from db.bank.users import Users
from db.retention import Retention

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession


class Store:
    """What a handler may read and write. It never begins, commits or rolls back."""

    __slots__ = ("audit", "ledger", "reports", "retention", "session", "users")

    def __init__(self, session: "AsyncSession") -> None:
        self.session = session
        self.audit = Audit(session)
        self.ledger = Ledger(session)
        self.retention = Retention(session, kept=KEPT)
        self.reports = Reports(session)
        self.users = Users(session)
