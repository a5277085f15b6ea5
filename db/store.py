"""The store: what a handler may read and write, one attribute per aggregate.

The one file of `db/` that joins the machine's and the bank's. Without a bank, `audit` has
RECORD_RULES and `retention` no condition.
"""

from typing import TYPE_CHECKING, Final

from db.audit import RECORD_RULES, Audit
from db.bank.audit_rules import COUNTED, LEDGER_RULES
from db.bank.ledger import Ledger
from db.bank.reports import Reports
from db.bank.retention import KEPT
from db.bank.users import Users
from db.retention import Retention

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

RULES: Final = (*RECORD_RULES, *LEDGER_RULES)


class Store:
    """One transaction's view of the database. It never begins, commits or rolls back."""

    __slots__ = ("audit", "ledger", "reports", "retention", "session", "users")

    def __init__(self, session: "AsyncSession") -> None:
        self.session = session
        self.audit = Audit(session, RULES, counted=COUNTED)
        self.retention = Retention(session, kept=KEPT)
        self.ledger = Ledger(session)
        self.reports = Reports(session)
        self.users = Users(session)
