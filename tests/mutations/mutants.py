"""The planted bugs: each a small change to our own code, and the tests that must see it."""

from dataclasses import dataclass
from pathlib import Path

LEDGER_SQL = "db/migrations/sql/0002_bank.sql"
LEDGER_TESTS = ("tests/bank/test_lock_order.py", "tests/bank/test_ledger.py")
EXECUTE = "worker/execution/attempts.py"
EXECUTE_TESTS = ("tests/worker/execution/test_executor.py",)
CRASH_TESTS = ("tests/worker/loop/test_loop_crashes.py",)
DATA_TESTS = ("tests/worker/loop/test_loop_data.py",)


@dataclass(frozen=True)
class Mutant:
    """One planted bug."""

    name: str
    file: str
    replace: tuple[tuple[str, str], ...]
    """Each text must be there exactly once, or the mutant is out of date."""
    tests: tuple[str, ...]


def mutated(mutant: Mutant, root: Path) -> str:
    """Return the file with the bug in it.

    Raises:
        LookupError: the code has changed so that the mutant no longer fits.
    """
    text = (root / mutant.file).read_text()
    for old, new in mutant.replace:
        if text.count(old) != 1:
            raise LookupError(f"{mutant.file} has {text.count(old)} times: {old!r}")
        text = text.replace(old, new)
    return text


_LOCKS = """  FOR one IN
    SELECT * FROM {schema}.accounts WHERE id IN (p_from, p_to) ORDER BY id FOR NO KEY UPDATE
  LOOP
    IF one.id = p_from THEN payer := one; ELSE payee := one; END IF;
  END LOOP;
"""
_INSERT = """\
  INSERT INTO {schema}.transfers (id, from_account, to_account, amount, currency, posted_at)
    VALUES (p_id, p_from, p_to, units, p_currency, now)
    ON CONFLICT (id) DO NOTHING;
"""
_UPDATES = """\
  from_balance := payer.balance - units;
  to_balance := payee.balance + units;
  UPDATE {schema}.accounts SET balance = from_balance, version = payer.version + 1 \
WHERE id = p_from;
  UPDATE {schema}.accounts SET balance = to_balance, version = payee.version + 1 WHERE id = p_to;
"""
_FENCE = """        if not await _write(Record(session), job, delivery, answered):
"""
_COMMIT = """        window.open()
        await transaction.commit()
"""
_HANDLE = """            answer = await call_handler(job, context, payload)
            await transaction.conclude()
"""
_OWN_USE = """\
        async with JobTransaction(self._engine, job.policy.timeout) as transaction:
            window.entered"""
_KEPT_USE = """\
        async with _kept(self, job, delivery) as transaction:
            window.entered"""
_KEPT = """from contextlib import asynccontextmanager

from db.errors import diagnose


@asynccontextmanager
async def _kept(executor, job, delivery):
    kept = vars(executor).setdefault("kept", {})
    transaction = kept.pop(delivery.job.id, None)
    if transaction is None:
        transaction = JobTransaction(executor._engine, job.policy.timeout)
        await transaction.__aenter__()
    try:
        yield transaction
    except Exception as error:
        if diagnose(error).sqlstate is None:
            await transaction.__aexit__(type(error), error, None)
        else:
            kept[delivery.job.id] = transaction
        raise
    await transaction.__aexit__(None, None, None)


"""

MUTANTS = (
    Mutant(
        "locks without ORDER BY",
        LEDGER_SQL,
        (("(p_from, p_to) ORDER BY id FOR NO KEY UPDATE", "(p_from, p_to) FOR NO KEY UPDATE"),),
        LEDGER_TESTS,
    ),
    Mutant(
        "no lock",
        LEDGER_SQL,
        ((" ORDER BY id FOR NO KEY UPDATE", " ORDER BY id"),),
        LEDGER_TESTS,
    ),
    Mutant(
        "FOR UPDATE after the insert",
        LEDGER_SQL,
        (
            (_INSERT, ""),
            (
                _LOCKS,
                "  now := clock_timestamp();\n"
                "  units := p_amount;\n"
                + _INSERT
                + _LOCKS.replace("FOR NO KEY UPDATE", "FOR UPDATE"),
            ),
            (
                "  IF NOT FOUND THEN\n",
                "  IF (SELECT count(*) FROM {schema}.entries WHERE transfer_id = p_id) > 0 THEN\n",
            ),
        ),
        LEDGER_TESTS,
    ),
    Mutant(
        "locks the payer, then the payee",
        LEDGER_SQL,
        (
            (
                _LOCKS,
                """  SELECT * INTO payer FROM {schema}.accounts WHERE id = p_from FOR NO KEY UPDATE;
  SELECT * INTO payee FROM {schema}.accounts WHERE id = p_to FOR NO KEY UPDATE;
""",
            ),
        ),
        LEDGER_TESTS,
    ),
    Mutant(
        "a float amount",
        LEDGER_SQL,
        (
            (
                "minor := p_amount * 10::numeric ^ payer.exponent;",
                "minor := round((p_amount::float8 * 10 ^ payer.exponent)::numeric, 6);",
            ),
        ),
        ("tests/bank/test_money.py",),
    ),
    Mutant(
        "< or <= at the floor",
        LEDGER_SQL,
        (("payer.balance - units < payer.floor", "payer.balance - units <= payer.floor"),),
        ("tests/bank/test_floor.py",),
    ),
    Mutant(
        "no inbox: the fence stops nothing",
        EXECUTE,
        ((_FENCE, "        if False:\n"),),
        EXECUTE_TESTS,
    ),
    Mutant(
        "the inbox in a transaction of its own",
        EXECUTE,
        (
            (
                _FENCE,
                "        await transaction.commit()\n"
                "        await transaction.restart()\n" + _FENCE,
            ),
        ),
        (*EXECUTE_TESTS, "tests/worker/execution/test_commit_in_doubt.py"),
    ),
    Mutant(
        "done is told before the commit",
        EXECUTE,
        (
            (
                _COMMIT,
                """        window.open()
        try:
            await transaction.commit()
        finally:
            return outcome
""",
            ),
        ),
        ("tests/worker/execution/test_commit_in_doubt.py",),
    ),
    Mutant(
        "CancelledError is swallowed",
        "worker/execution/commit.py",
        (
            (
                """            return work.result()
        raise
""",
                """            return work.result()
        return None
""",
            ),
        ),
        ("tests/worker/execution/test_commit.py", "tests/worker/execution/test_cancellation.py"),
    ),
    Mutant(
        "the statement is retried, not the transaction",
        EXECUTE,
        (
            (
                _HANDLE,
                """            try:
                answer = await call_handler(job, context, payload)
            except Exception as error:
                if getattr(getattr(error, "orig", error), "sqlstate", None) is None:
                    raise
                answer = await call_handler(job, context, payload)
            await transaction.conclude()
""",
            ),
        ),
        EXECUTE_TESTS,
    ),
    Mutant(
        "23514 is retried",
        "db/errors.py",
        (('"23514": Trouble.ALARM', '"23514": Trouble.CONFLICT'),),
        ("tests/db/test_errors.py", *EXECUTE_TESTS),
    ),
    Mutant(
        "a failed session is used again",
        EXECUTE,
        (
            (
                _OWN_USE,
                _KEPT_USE,
            ),
            ("class Attempts:", _KEPT + "class Attempts:"),
        ),
        EXECUTE_TESTS,
    ),
    Mutant(
        "one statement with a.balance",
        LEDGER_SQL,
        (
            (
                _LOCKS,
                """  FOR one IN
    SELECT * FROM {schema}.accounts WHERE id IN (p_from, p_to)
  LOOP
    IF one.id = p_from THEN payer := one; ELSE payee := one; END IF;
  END LOOP;
""",
            ),
            (
                _UPDATES,
                """\
  WITH locked AS (
    SELECT * FROM {schema}.accounts WHERE id IN (p_from, p_to) ORDER BY id FOR NO KEY UPDATE
  ), paid AS (
    UPDATE {schema}.accounts a SET balance = a.balance - units, version = a.version + 1
    FROM locked WHERE a.id = p_from AND locked.id = p_from RETURNING a.balance, a.version
  ), got AS (
    UPDATE {schema}.accounts a SET balance = a.balance + units, version = a.version + 1
    FROM locked WHERE a.id = p_to AND locked.id = p_to RETURNING a.balance, a.version
  )
  SELECT paid.balance, paid.version - 1, got.balance, got.version - 1
    INTO from_balance, payer.version, to_balance, payee.version FROM paid, got;
""",
            ),
        ),
        LEDGER_TESTS,
    ),
    Mutant(
        "the outbox is deleted at dispatch",
        "db/dispatch.py",
        (
            (
                "UPDATE jobs SET dispatched_at = now(), leased_by = NULL\n    FROM unsent WHERE",
                "DELETE FROM jobs USING unsent WHERE",
            ),
        ),
        ("tests/worker/maintenance/test_relay_flush.py",),
    ),
    Mutant(
        "a claim is not counted",
        "worker/loop/lua/claim.lua",
        (
            (
                "if not redis.call('SET', CLAIMS .. id, 1, 'NX', 'EX', RETRY_TTL_S) then",
                "if redis.call('EXISTS', CLAIMS .. id) == 1 then",
            ),
        ),
        CRASH_TESTS,
    ),
    Mutant(
        "a claim forgets the claims before it",
        "worker/loop/lua/claim.lua",
        (("CLAIMS .. id, 1, 'NX', 'EX'", "CLAIMS .. id, 1, 'EX'"),),
        CRASH_TESTS,
    ),
    Mutant(
        "a suspect that did not run is forgiven",
        "worker/loop/lua/finish.lua",
        (("    if kind == 'unrun' then", "    if false then"),),
        CRASH_TESTS,
    ),
    Mutant(
        "a suspect is never alone",
        "worker/loop/suspects.py",
        (("        if first is not claim:\n", "        if first is claim:\n"),),
        CRASH_TESTS,
    ),
    Mutant(
        "a suspect runs beside others",
        "worker/loop/suspects.py",
        (("            other.recording and not claim.in_redis\n", "            True\n"),),
        CRASH_TESTS,
    ),
    Mutant(
        "an end that fails alone stays at the head of the line",
        "worker/loop/completer.py",
        (("            self._note_alone(error)\n", "            pass\n"),),
        ("tests/worker/loop/test_loop_ends.py",),
    ),
    Mutant(
        "a batch of ends that fails is sent again whole",
        "worker/loop/completer.py",
        (("self._batch_max = max(1, count // 2)", "self._batch_max = count"),),
        ("tests/worker/loop/test_loop_ends.py",),
    ),
    Mutant(
        "a body of a wrong type ends the claim of all",
        "worker/loop/lua/claim.lua",
        (("local body = read('GET', JOB .. id)", "local body = redis.call('GET', JOB .. id)"),),
        DATA_TESTS,
    ),
    Mutant(
        "an id that is not UTF-8 is not set aside",
        "worker/loop/fetcher.py",
        (
            (
                "        if batch.unreadable:\n",
                "        if not batch.unreadable:\n",
            ),
        ),
        DATA_TESTS,
    ),
    Mutant(
        "a body's times are not checked",
        "worker/loop/decode.py",
        (("0 <= enqueue_ms <= ENQUEUED_MAX_MS", "0 <= enqueue_ms"),),
        DATA_TESTS,
    ),
    Mutant(
        "a refused command counts as a lost Redis",
        "worker/loop/connection.py",
        (
            (
                "            if not is_refusal(error):\n                self.lose",
                "            if error:\n                self.lose",
            ),
        ),
        DATA_TESTS,
    ),
    Mutant(
        "an old abort ends a later job",
        "worker/loop/aborts.py",
        (
            (
                "    return aborted_at_ms >= min(enqueue_ms, now_ms) - ABORT_SKEW_MS",
                "    return True",
            ),
        ),
        ("tests/worker/loop/test_loop_faults.py",),
    ),
    Mutant(
        "a member is removed from the quarantine before it is in the record",
        "worker/maintenance/quarantine.py",
        (
            (
                "        redis_id, job_id = _ids_of(entry)\n",
                """\
        redis_id, job_id = _ids_of(entry)
        await quarantine.remove(self._redis, self._queue_name, [entry])
""",
            ),
        ),
        ("tests/worker/maintenance/test_quarantine.py",),
    ),
    Mutant(
        "a bell that cannot be rung costs a client its answer",
        "jobs/_wire.py",
        (("redis.pcall('ZADD', KEYS[2], 0, 'ring')", "redis.call('ZADD', KEYS[2], 0, 'ring')"),),
        ("tests/jobs/test_wire.py",),
    ),
    Mutant(
        "a function's name may be longer than an index takes",
        "worker/execution/serializer.py",
        (
            (
                'len(job["f"].encode()) <= KIND_BYTES_MAX',
                'len(job["f"].encode()) <= len(job["f"]) * 4',
            ),
        ),
        ("tests/worker/execution/test_serializer.py",),
    ),
    Mutant(
        "a count of drops that is none ends the claim of all",
        "worker/loop/lua/prelude.lua",
        (("redis.pcall('HINCRBY', key,", "redis.call('HINCRBY', key,"),),
        DATA_TESTS,
    ),
    Mutant(
        "a mark without an end holds up every rebuild",
        "worker/maintenance/relay.py",
        ((" and redis.call('TTL', KEYS[1]) >= 0 then", " then"),),
        ("tests/worker/maintenance/test_relay_flush.py",),
    ),
)
