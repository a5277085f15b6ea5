"""The machine: jobs and the functions that accept them, schedules, workers."""

from alembic import op

from db.migrations import run_script

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_script("0001_machine.sql")
    run_script("0001_batches.sql")


def downgrade() -> None:
    op.execute("DROP TRIGGER jobs_announce ON jobs")
    tables = ("batches", "workers", "pauses", "occurrences", "schedules", "webhook_endpoints")
    for table in tables:
        op.drop_table(table)
    for function in (
        "cancel_batch",
        "batch_status",
        "open_batch_in_job",
        "open_batch",
        "try_open_batch",
        "fire_batch",
        "pause_kind",
        "pause_queue",
        "resume_kind",
        "resume_queue",
        "pause_target",
        "resume_target",
        "notify_end",
        "announce_job",
        "announce_end",
        "cancel_job",
        "enqueue_job",
        "enqueue_follow_ups",
        "accept_job",
        "try_enqueue_job",
        "schema_fault",
        "has_format",
        "is_day",
        "is_json",
    ):
        op.execute(f"DROP FUNCTION {function}")
    for table in ("jobs", "job_kinds"):
        op.drop_table(table)
    op.execute("DROP FUNCTION set_payload_check")
    op.execute("DROP FUNCTION new_id")
