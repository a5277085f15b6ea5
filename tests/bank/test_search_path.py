"""A transfer is posted the same under any search_path, and never into tables of its caller."""

import uuid

import asyncpg
import pytest

TRAPS = """
    CREATE SCHEMA trap;
    CREATE TABLE trap.accounts (LIKE public.accounts INCLUDING DEFAULTS);
    CREATE TABLE trap.transfers (LIKE public.transfers INCLUDING DEFAULTS);
    CREATE TABLE trap.entries (LIKE public.entries INCLUDING DEFAULTS);
    CREATE FUNCTION trap.clock_timestamp() RETURNS timestamptz
      LANGUAGE sql AS $$ SELECT '2000-01-01'::timestamptz $$;
    CREATE FUNCTION trap.encode(bytea, text) RETURNS text
      LANGUAGE sql AS $$ SELECT 'ffffff'::text $$;
    CREATE FUNCTION trap.is_less(bigint, bigint) RETURNS boolean
      LANGUAGE sql AS $$ SELECT false $$;
    CREATE OPERATOR trap.< (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = trap.is_less);
    CREATE SCHEMA reporting;
    CREATE TEMPORARY TABLE accounts (LIKE public.accounts INCLUDING DEFAULTS);
"""


@pytest.mark.parametrize(
    "path",
    ["''", "trap, pg_catalog", "reporting, pg_catalog", "pg_temp, trap, public, pg_catalog"],
)
async def test_a_transfer_is_posted_and_refused_by_the_books_alone(new_database_url, path):
    payer, payee, job = (uuid.uuid4() for _ in range(3))
    bank = await asyncpg.connect(new_database_url)
    await bank.execute(TRAPS)
    for account, balance in ((payer, 100), (payee, 0)):
        await bank.execute(
            "INSERT INTO public.accounts (id, code, currency, balance) VALUES ($1, $2, 'EUR', $3)",
            account,
            str(account),
            balance,
        )
    await bank.execute(f"SET search_path = {path}")
    post = "SELECT verdict FROM public.post_transfer($1, $2, $3, $4, 'EUR')"
    verdicts = [
        await bank.fetchval(post, uuid.uuid4(), payer, payee, 101),
        await bank.fetchval(post, job, payer, payee, 60),
        await bank.fetchval(post, job, payer, payee, 40),
    ]
    world = await bank.fetchval("SELECT public.world_account_id('EUR')")
    await bank.execute("SET search_path = public")
    posted = await bank.fetch("SELECT id, posted_at > '2020-01-01' FROM public.transfers")
    await bank.close()

    assert verdicts == ["insufficient_funds", "posted", "already_posted"]
    assert str(world) == "ffffffff-ffff-8fff-bfff-000000455552"
    assert [tuple(row) for row in posted] == [(job, True)]
