"""What must hold of the bank: its ledger, and its jobs beside the ledger."""

from typing import Final

from db.audit import Rule, selected_by

COUNTED: Final = ("transfers",)

LEDGER_RULES: Final = (
    Rule(
        "zero_sum",
        "the balances of each currency sum to 0",
        selected_by("SELECT currency FROM accounts GROUP BY currency HAVING sum(balance) <> 0"),
    ),
    Rule(
        "balance",
        "a balance is its last entry, and the sum of its entries",
        selected_by(
            """SELECT a.id::text FROM accounts a
           LEFT JOIN (SELECT account_id, sum(amount) AS total, count(*) AS entries
                      FROM entries GROUP BY account_id) e ON e.account_id = a.id
           LEFT JOIN entries last ON last.account_id = a.id AND last.version = a.version
           WHERE a.balance <> coalesce(e.total, 0) OR a.version <> coalesce(e.entries, 0)
              OR a.balance <> coalesce(last.balance_after, 0)"""
        ),
    ),
    Rule(
        "chain",
        "each account's entries follow each other without a gap",
        selected_by(
            """SELECT account_id::text || ' version ' || version FROM (
             SELECT account_id, version, balance_after - amount AS before,
                    lag(balance_after, 1, 0::bigint) OVER chain AS last,
                    row_number() OVER chain AS position
             FROM entries WINDOW chain AS (PARTITION BY account_id ORDER BY version)) e
           WHERE before <> last OR version <> position"""
        ),
    ),
    Rule(
        "double_entry",
        "a transfer has two entries, on its two accounts, that cancel out",
        selected_by(
            """SELECT t.id::text FROM transfers t
           LEFT JOIN entries e ON e.transfer_id = t.id
           GROUP BY t.id
           HAVING count(e.*) <> 2
              OR count(*) FILTER (
                   WHERE e.account_id = t.from_account AND e.amount = -t.amount) <> 1
              OR count(*) FILTER (
                   WHERE e.account_id = t.to_account AND e.amount = t.amount) <> 1"""
        ),
    ),
    Rule(
        "currency",
        "a transfer and its accounts are of one currency",
        selected_by(
            """SELECT t.id::text FROM transfers t
           JOIN accounts a ON a.id IN (t.from_account, t.to_account)
           WHERE a.currency <> t.currency"""
        ),
    ),
    Rule(
        "exponent",
        "the accounts of a currency count in one minor unit",
        selected_by(
            "SELECT currency FROM accounts GROUP BY currency HAVING min(exponent) <> max(exponent)"
        ),
    ),
    Rule(
        "floor",
        "no entry ever left its account below the floor",
        selected_by(
            """SELECT e.account_id::text || ' version ' || e.version
           FROM entries e JOIN accounts a ON a.id = e.account_id
           WHERE e.balance_after < a.floor"""
        ),
    ),
    Rule(
        "transfer_has_job",
        "a transfer is the effect of a completed job",
        selected_by(
            """SELECT t.id::text FROM transfers t
           LEFT JOIN jobs j ON j.id = t.id AND j.state = 'completed' AND j.kind = 'transfer_funds'
           WHERE j.id IS NULL"""
        ),
    ),
    Rule(
        "job_has_transfer",
        "a completed transfer job has its transfer",
        selected_by(
            """SELECT j.id::text FROM jobs j LEFT JOIN transfers t ON t.id = j.id
           WHERE j.kind = 'transfer_funds' AND j.state = 'completed' AND t.id IS NULL"""
        ),
    ),
    Rule(
        "job_has_user",
        "a completed user job has its user and accounts",
        selected_by(
            """SELECT j.id::text FROM jobs j
           LEFT JOIN users u ON u.id = (j.result->>'user_id')::uuid
           WHERE j.kind = 'create_user' AND j.state = 'completed' AND (
             u.id IS NULL OR (SELECT count(*) FROM accounts a WHERE a.user_id = u.id)
               < (SELECT count(*) FROM jsonb_object_keys(j.result->'accounts')))"""
        ),
    ),
    Rule(
        "order",
        "the accounts' histories fit into one order of transfers",
        selected_by(
            """SELECT DISTINCT transfer_id::text FROM (
             SELECT e.transfer_id, t.number, lag(t.number) OVER chain AS last
             FROM entries e JOIN transfers t ON t.id = e.transfer_id
             WINDOW chain AS (PARTITION BY e.account_id ORDER BY e.version)) e
           WHERE number <= last"""
        ),
    ),
)
