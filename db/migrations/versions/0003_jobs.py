"""The doors in SQL: `enqueue_job`, and the rules that every door shares."""

from alembic import op

from db.migrations import run_script

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_script("0003_jobs.sql")


def downgrade() -> None:
    for function in (
        "cancel_job",
        "enqueue_job",
        "accept_job",
        "offer_job",
        "payload_hash",
        "schema_fault",
        "has_format",
    ):
        op.execute(f"DROP FUNCTION {function}")
