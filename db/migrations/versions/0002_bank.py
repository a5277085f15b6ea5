"""The bank: users, accounts, and append-only transfers that `post_transfer` posts."""

from alembic import op

from db.migrations import run_script

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_script("0002_bank.sql")


def downgrade() -> None:
    op.execute("DROP FUNCTION post_transfer")
    op.execute("DROP FUNCTION world_account_id")
    for table in ("entries", "transfers", "accounts", "users"):
        op.drop_table(table)
    op.execute("DROP FUNCTION refuse_change")
    op.execute("DROP FUNCTION check_account")
