"""Schedules, their occurrences, and what retention looks for."""

from alembic import op

from db.migrations import run_script

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_script("0004_schedules.sql")


def downgrade() -> None:
    op.drop_index("jobs_purgeable_idx", "jobs")
    op.drop_table("occurrences")
    op.drop_table("schedules")
