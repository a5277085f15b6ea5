"""The bank: users, a double-entry ledger, and what reports read. Yours to keep or to delete."""
