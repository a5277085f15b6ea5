"""The SQL of the reports. All of it reads in the snapshot's own transaction."""

from typing import Final

from sqlalchemy import text

from db.transaction import MOVE_LIMITS

# A standby has replayed up to where a primary has written.
TAKE_SNAPSHOT = text(f"""
    SELECT ({MOVE_LIMITS}),
           set_config('TimeZone', :timezone, true),
           pg_current_snapshot()::text AS id,
           now() AS taken_at,
           CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
                ELSE pg_current_wal_lsn() END::text AS wal_lsn
""")

# An entry's time is read while its accounts are locked for update, and locks outlive the commit. So
# when nobody holds such a lock any more who held it at `end`, all that was posted before `end` is
# committed, and a snapshot taken after this statement sees it. The snapshot's own list of running
# transactions would not do: it leaves out those with a number above the last one that committed.
# Whoever began after `end` posts after it. (Other roles' rows in pg_stat_activity may be hidden,
# and a prepared transaction has none: both count as old.)
SETTLED = text("""
    SELECT now() >= :end AND NOT EXISTS (
        SELECT FROM pg_locks AS lock LEFT JOIN pg_stat_activity AS backend USING (pid)
        WHERE lock.locktype = 'relation' AND lock.mode = 'RowShareLock' AND lock.granted
          AND lock.relation = 'accounts'::regclass
          AND lock.database = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND (backend.xact_start >= :end) IS NOT TRUE
    )
""")

FIND_ACCOUNT = text("""
    SELECT a.id AS account, a.code, a.currency, a.exponent AS digits, u.username AS holder
    FROM accounts a LEFT JOIN users u ON u.id = a.user_id WHERE a.id = :account
""")

SUM_STATEMENT = text("""
    SELECT coalesce(sum(amount) FILTER (WHERE posted_at < since), 0) AS opening,
           coalesce(-sum(amount) FILTER (WHERE posted_at >= since AND amount < 0), 0) AS debits,
           coalesce(sum(amount) FILTER (WHERE posted_at >= since AND amount > 0), 0) AS credits,
           count(*) FILTER (WHERE posted_at >= since AND amount < 0) AS debit_lines,
           count(*) FILTER (WHERE posted_at >= since AND amount > 0) AS credit_lines,
           min(version) FILTER (WHERE posted_at >= since) AS first_version,
           max(version) FILTER (WHERE posted_at >= since) AS last_version
    FROM entries, coalesce(CAST(:start AS timestamptz), '-infinity') AS since
    WHERE account_id = :account AND posted_at < :end
""")

# What the running balance itself says of the same period.
CARRIED_BALANCES = text("""
    SELECT first.balance_after - first.amount AS opening, last.balance_after AS closing
    FROM entries first, entries last
    WHERE first.account_id = :account AND first.version = :first_version
      AND last.account_id = :account AND last.version = :last_version
""")

BALANCE_OVER_TIME = text("""
    SELECT e.posted_at AS at, e.balance_after AS balance
    FROM (
        SELECT max(version) AS version FROM entries
        WHERE account_id = :account AND version BETWEEN :first_version AND :last_version
        GROUP BY date_bin(:step, posted_at, :origin)
    ) last
    JOIN entries e ON e.account_id = :account AND e.version = last.version
    ORDER BY e.version
""")

FIRST_POSTED_AT = text("""
    SELECT posted_at FROM entries WHERE account_id = :account AND version = :first_version
""")

# Also a check of every balance against the entries it came from, whatever the period: the same
# scan gives it, and a trial balance of drifted accounts would be a lie that balances.
SUM_TRIAL_BALANCE = text("""
    SELECT a.currency, min(a.exponent) AS digits,
           count(*) FILTER (WHERE s.opening <> 0 OR s.moved > 0) AS lines,
           sum(s.moved) AS entries,
           coalesce(-sum(s.opening) FILTER (WHERE s.opening < 0), 0) AS opening_debit,
           coalesce(sum(s.opening) FILTER (WHERE s.opening > 0), 0) AS opening_credit,
           sum(s.debits) AS debits,
           sum(s.credits) AS credits,
           coalesce(-sum(s.closing) FILTER (WHERE s.closing < 0), 0) AS closing_debit,
           coalesce(sum(s.closing) FILTER (WHERE s.closing > 0), 0) AS closing_credit,
           count(*) FILTER (WHERE a.balance <> s.total) AS drifted,
           min(a.exponent) <> max(a.exponent) AS mixed
    FROM accounts a
    LEFT JOIN (
        SELECT account_id,
               sum(amount) AS total,
               sum(amount) FILTER (WHERE posted_at < since) AS opening,
               -sum(amount) FILTER (WHERE posted_at >= since AND posted_at < :end AND amount < 0)
                 AS debits,
               sum(amount) FILTER (WHERE posted_at >= since AND posted_at < :end AND amount > 0)
                 AS credits,
               sum(amount) FILTER (WHERE posted_at < :end) AS closing,
               count(*) FILTER (WHERE posted_at >= since AND posted_at < :end) AS moved
        FROM entries, coalesce(CAST(:start AS timestamptz), '-infinity') AS since
        GROUP BY account_id
    ) e ON e.account_id = a.id
    CROSS JOIN LATERAL (
        SELECT coalesce(e.total, 0) AS total, coalesce(e.opening, 0) AS opening,
               coalesce(e.debits, 0) AS debits, coalesce(e.credits, 0) AS credits,
               coalesce(e.closing, 0) AS closing, coalesce(e.moved, 0) AS moved
    ) s
    WHERE CAST(:currency AS text) IS NULL OR a.currency = :currency
    GROUP BY a.currency
    ORDER BY a.currency
""")

# Days are told apart by their bounds and not by a time zone's name, so that Python and PostgreSQL
# cannot disagree on it. Bucket 1 is the day before the period, for comparison. Every deposit and
# withdrawal has an entry on the world's account, which so proves them, and that none is missing.
SUM_VOLUME = text("""
    WITH posted AS (
        SELECT currency, width_bucket(posted_at, CAST(:bounds AS timestamptz[])) AS bucket, amount,
               from_account, to_account, world_account_id(currency) AS world
        FROM transfers
        WHERE posted_at >= :first AND posted_at < :last
          AND (CAST(:currency AS text) IS NULL OR currency = :currency)
    ), by_day AS (
        SELECT currency, bucket, count(*) AS transfers,
               sum(amount) AS total, max(amount) AS largest,
               percentile_disc(0.5) WITHIN GROUP (ORDER BY amount) AS median,
               coalesce(sum(amount) FILTER (WHERE from_account = world), 0) AS deposits,
               coalesce(sum(amount) FILTER (WHERE to_account = world), 0) AS withdrawals
        FROM posted GROUP BY currency, bucket
    ), taking_part AS (
        SELECT currency, bucket, count(DISTINCT account) AS accounts
        FROM posted, unnest(ARRAY[from_account, to_account]) AS account
        WHERE account <> world GROUP BY currency, bucket
    ), outside AS (
        SELECT currency, width_bucket(posted_at, CAST(:bounds AS timestamptz[])) AS bucket,
               min(version) AS first_entry, max(version) AS last_entry, count(*) AS entries,
               coalesce(-sum(amount) FILTER (WHERE amount < 0), 0) AS paid_in,
               coalesce(sum(amount) FILTER (WHERE amount > 0), 0) AS paid_out
        FROM (SELECT DISTINCT currency FROM by_day) AS found
        JOIN entries ON account_id = world_account_id(currency)
        WHERE posted_at >= :first AND posted_at < :last
        GROUP BY 1, 2
    )
    SELECT currency, bucket, transfers, total, median, largest, deposits, withdrawals, accounts,
           first_entry, last_entry,
           deposits = coalesce(paid_in, 0) AND withdrawals = coalesce(paid_out, 0)
             AND coalesce(entries = last_entry - first_entry + 1, true) AS proved
    FROM by_day LEFT JOIN taking_part USING (currency, bucket)
    LEFT JOIN outside USING (currency, bucket)
    ORDER BY currency, bucket
""")

# A scan for each currency, but each keeps ten rows: ranking all of them would sort the period.
LARGEST_TRANSFERS = text("""
    SELECT c.currency, t.id, t.posted_at, payer.code AS payer, payee.code AS payee, t.amount,
           payer.exponent AS digits, paying.username AS payer_name, paid.username AS payee_name
    FROM unnest(CAST(:currencies AS text[])) AS c (currency)
    CROSS JOIN LATERAL (
        SELECT * FROM transfers
        WHERE currency = c.currency AND posted_at >= :first AND posted_at < :last
        ORDER BY amount DESC, posted_at, id LIMIT :count
    ) t
    JOIN accounts payer ON payer.id = t.from_account
    JOIN accounts payee ON payee.id = t.to_account
    LEFT JOIN users paying ON paying.id = payer.user_id
    LEFT JOIN users paid ON paid.id = payee.user_id
    ORDER BY c.currency, t.amount DESC, t.posted_at, t.id
""")

LEDGER_EXPONENTS = text("""
    SELECT currency, exponent FROM accounts WHERE code = ANY(CAST(:world_codes AS text[]))
""")

COUNT_REJECTED = text("""
    SELECT payload->>'currency' AS currency, result->>'code' AS code,
           width_bucket(finished_at, CAST(:bounds AS timestamptz[])) AS bucket, count(*) AS jobs
    FROM jobs
    WHERE kind = 'transfer_funds' AND state = 'rejected'
      AND finished_at >= :first AND finished_at < :last
      AND (CAST(:currency AS text) IS NULL OR payload->>'currency' = :currency)
    GROUP BY 1, 2, 3
""")


def _guarded(column: str) -> str:
    """SQL for a text that no spreadsheet takes for a formula: a `'` before what could begin one.

    `$1` switches it on: only CSV cells are ever taken for formulas.
    """
    return (
        rf"CASE WHEN $1 AND {column} ~ '^\s*[-=+@＝＋－＠|%]' "  # noqa: RUF001 - Excel reads them
        f"THEN '''' || {column} ELSE {column} END"
    )


# As every other time in a report reads; PostgreSQL writes it so for JSON, in the session's zone.
ISO_8601: Final = "to_jsonb(e.posted_at) #>> '{}'"

# COPY's parameters are asyncpg's own: $1 is whether texts are guarded.
COPY_STATEMENT: Final = f"""
    SELECT 'entry', t.currency, e.version, {ISO_8601}, e.transfer_id,
           CASE WHEN other.user_id IS NOT NULL THEN 'Transfer'
                WHEN e.amount > 0 THEN 'Deposit' ELSE 'Withdrawal' END,
           {_guarded("other.code")},
           {_guarded("u.username")},
           CASE WHEN e.amount < 0 THEN -e.amount * $5::numeric END,
           CASE WHEN e.amount > 0 THEN e.amount * $5::numeric END,
           e.balance_after * $5::numeric
    FROM entries e
    JOIN transfers t ON t.id = e.transfer_id
    JOIN accounts other
      ON other.id = CASE WHEN e.amount < 0 THEN t.to_account ELSE t.from_account END
    LEFT JOIN users u ON u.id = other.user_id
    WHERE e.account_id = $2::uuid AND e.version BETWEEN $3::bigint AND $4::bigint
    ORDER BY e.version
"""  # noqa: S608 - put together from constants

COPY_TRIAL_BALANCE: Final = f"""
    SELECT 'account', a.currency, {_guarded("a.code")}, {_guarded("u.username")},
           CASE WHEN a.user_id IS NULL THEN 'outside world' ELSE 'customer' END,
           moved,
           CASE WHEN opening < 0 THEN -opening * unit END,
           CASE WHEN opening > 0 THEN opening * unit END,
           CASE WHEN debits > 0 THEN debits * unit END,
           CASE WHEN credits > 0 THEN credits * unit END,
           (credits - debits) * unit,
           CASE WHEN closing < 0 THEN -closing * unit END,
           CASE WHEN closing > 0 THEN closing * unit END
    FROM (
        SELECT account_id,
               coalesce(sum(amount) FILTER (WHERE posted_at < since), 0) AS opening,
               coalesce(-sum(amount) FILTER (WHERE posted_at >= since AND amount < 0), 0) AS debits,
               coalesce(sum(amount) FILTER (WHERE posted_at >= since AND amount > 0), 0) AS credits,
               sum(amount) AS closing,
               count(*) FILTER (WHERE posted_at >= since) AS moved
        FROM entries, coalesce($2::timestamptz, '-infinity') AS since
        WHERE posted_at < $3::timestamptz GROUP BY account_id
    ) e
    JOIN accounts a ON a.id = e.account_id
    JOIN unnest($4::text[], $5::numeric[]) AS c (currency, unit) ON c.currency = a.currency
    LEFT JOIN users u ON u.id = a.user_id
    WHERE opening <> 0 OR moved > 0
    ORDER BY a.currency COLLATE "C", a.code COLLATE "C"
"""  # noqa: S608 - put together from constants
