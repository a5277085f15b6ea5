"""The tables: users, accounts, transfers, entries, and the record of jobs."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "job_kinds",
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("payload_schema", postgresql.JSONB(), nullable=False),
        sa.Column(
            "registered_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("kind", name=op.f("job_kinds_pkey")),
    )
    op.create_table(
        "jobs",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=True),
        sa.Column("payload", postgresql.JSONB(), nullable=False),
        sa.Column("payload_hash", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'queued'"), nullable=False),
        sa.Column("result", postgresql.JSONB(), nullable=True),
        sa.Column("errors", postgresql.JSONB(), server_default=sa.text("'[]'"), nullable=False),
        sa.Column("attempts", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "enqueued_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column(
            "run_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("rung_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("redis_id", sa.Text(), nullable=True),
        sa.Column("traceparent", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "(state = 'queued') = (finished_at IS NULL)", name=op.f("jobs_finished_check")
        ),
        sa.CheckConstraint(
            "state IN ('queued', 'completed', 'rejected', 'dead', 'cancelled')",
            name=op.f("jobs_state_check"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("jobs_pkey")),
        postgresql_with={"fillfactor": "80", "autovacuum_vacuum_scale_factor": "0.02"},
    )
    op.create_index(
        "jobs_dead_idx",
        "jobs",
        ["finished_at", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'dead'"),
    )
    op.create_index(
        "jobs_kind_key_key",
        "jobs",
        ["kind", "key"],
        unique=True,
        postgresql_where=sa.text("key IS NOT NULL"),
    )
    op.create_index(
        "jobs_runnable_idx",
        "jobs",
        ["run_at", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'queued'"),
    )
    op.create_table(
        "users",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("username", sa.Text(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("users_pkey")),
    )
    op.create_index(
        "users_email_key",
        "users",
        [sa.literal_column("casefold((NORMALIZE(email, NFKC) COLLATE pg_unicode_fast))")],
        unique=True,
    )
    op.create_index(
        "users_username_key",
        "users",
        [sa.literal_column("casefold((NORMALIZE(username, NFKC) COLLATE pg_unicode_fast))")],
        unique=True,
    )
    op.create_table(
        "accounts",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=True),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("balance", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("floor", sa.BigInteger(), server_default=sa.text("0"), nullable=True),
        sa.Column("status", sa.Text(), server_default=sa.text("'open'"), nullable=False),
        sa.Column("version", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "opened_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", name=op.f("accounts_currency_check")),
        sa.CheckConstraint(
            "status IN ('open', 'frozen', 'closed')", name=op.f("accounts_status_check")
        ),
        sa.CheckConstraint("floor IS NULL OR balance >= floor", name=op.f("accounts_floor_check")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("accounts_user_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("accounts_pkey")),
        sa.UniqueConstraint("code", name=op.f("accounts_code_key")),
        sa.UniqueConstraint("id", "currency", name=op.f("accounts_id_currency_key")),
        sa.UniqueConstraint("user_id", "currency", name=op.f("accounts_user_id_currency_key")),
        postgresql_with={"fillfactor": "80"},
    )
    op.create_table(
        "transfers",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("from_account", sa.Uuid(), nullable=False),
        sa.Column("to_account", sa.Uuid(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column(
            "posted_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint("amount > 0", name=op.f("transfers_amount_check")),
        sa.CheckConstraint("from_account <> to_account", name=op.f("transfers_two_accounts_check")),
        sa.ForeignKeyConstraint(
            ["from_account", "currency"],
            ["accounts.id", "accounts.currency"],
            name=op.f("transfers_from_account_currency_fkey"),
        ),
        sa.ForeignKeyConstraint(
            ["to_account", "currency"],
            ["accounts.id", "accounts.currency"],
            name=op.f("transfers_to_account_currency_fkey"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("transfers_pkey")),
    )
    op.create_table(
        "entries",
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("transfer_id", sa.Uuid(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("balance_after", sa.BigInteger(), nullable=False),
        sa.Column(
            "posted_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint("amount <> 0", name=op.f("entries_amount_check")),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("entries_account_id_fkey")
        ),
        sa.ForeignKeyConstraint(
            ["transfer_id"], ["transfers.id"], name=op.f("entries_transfer_id_fkey")
        ),
        sa.PrimaryKeyConstraint("account_id", "version", name=op.f("entries_pkey")),
        sa.UniqueConstraint(
            "transfer_id", "account_id", name=op.f("entries_transfer_id_account_id_key")
        ),
    )


def downgrade() -> None:
    for table in ("entries", "transfers", "accounts", "users", "jobs", "job_kinds"):
        op.drop_table(table)
