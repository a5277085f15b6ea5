"""The fleet: a row per worker process."""

from alembic import op

from db.migrations import run_script

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_script("0005_workers.sql")


def downgrade() -> None:
    op.drop_table("workers")
