-- The bank: users, their accounts, and transfers as double entries.

CREATE TABLE users (
  id uuid DEFAULT new_id() CONSTRAINT users_pkey PRIMARY KEY,
  username text NOT NULL,
  -- What is equal for two names that count as one. The application computes it (db/bank/names.py),
  -- by the same tables on every server; compared byte by byte, so that no collation has a say.
  username_key text COLLATE "C" NOT NULL CONSTRAINT users_username_key_key UNIQUE
    CONSTRAINT users_username_visible_check CHECK (username_key <> ''),
  email text NOT NULL,
  email_key text COLLATE "C" NOT NULL CONSTRAINT users_email_key_key UNIQUE,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Money in one currency: a signed balance in minor units, credits minus debits.
CREATE TABLE accounts (
  id uuid DEFAULT new_id() CONSTRAINT accounts_pkey PRIMARY KEY,
  code text NOT NULL CONSTRAINT accounts_code_key UNIQUE,
  user_id uuid CONSTRAINT accounts_user_id_fkey REFERENCES users (id),
  currency text NOT NULL,
  -- Digits after the point: a fact of the account, whatever becomes of the currency in ISO 4217.
  exponent smallint NOT NULL DEFAULT 2,
  balance bigint NOT NULL DEFAULT 0,
  floor bigint DEFAULT 0,
  status text NOT NULL DEFAULT 'open',
  version bigint NOT NULL DEFAULT 0,
  opened_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  CONSTRAINT accounts_floor_check CHECK (floor IS NULL OR balance >= floor),
  CONSTRAINT accounts_id_currency_key UNIQUE (id, currency),
  CONSTRAINT accounts_user_id_currency_key UNIQUE (user_id, currency)
) WITH (fillfactor = 80);

-- One movement of money; its id is the id of the job that posted it.
CREATE TABLE transfers (
  id uuid CONSTRAINT transfers_pkey PRIMARY KEY,
  from_account uuid NOT NULL,
  to_account uuid NOT NULL,
  amount bigint NOT NULL CONSTRAINT transfers_amount_check CHECK (amount > 0),
  currency text NOT NULL,
  posted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  -- Drawn under the locks of both accounts, so it grows along every account, whatever clocks do:
  -- the one order of all transfers that the audit checks the accounts' histories against.
  number bigint GENERATED ALWAYS AS IDENTITY,
  CONSTRAINT transfers_two_accounts_check CHECK (from_account <> to_account),
  -- The currency of both accounts is the transfer's, by the schema.
  CONSTRAINT transfers_from_account_currency_fkey
    FOREIGN KEY (from_account, currency) REFERENCES accounts (id, currency),
  CONSTRAINT transfers_to_account_currency_fkey
    FOREIGN KEY (to_account, currency) REFERENCES accounts (id, currency)
);

-- One side of a transfer on one account; versions count up without a gap.
CREATE TABLE entries (
  account_id uuid NOT NULL CONSTRAINT entries_account_id_fkey REFERENCES accounts (id),
  version bigint NOT NULL,
  transfer_id uuid NOT NULL CONSTRAINT entries_transfer_id_fkey REFERENCES transfers (id),
  amount bigint NOT NULL CONSTRAINT entries_amount_check CHECK (amount <> 0),
  balance_after bigint NOT NULL,
  posted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  CONSTRAINT entries_pkey PRIMARY KEY (account_id, version),
  CONSTRAINT entries_transfer_id_account_id_key UNIQUE (transfer_id, account_id)
);

-- The ledger's rules that no code path can skip.

-- What a transfer changes of an account is its balance; what a balance never changes is checked here
-- and not by constraints, whose texts every update of the row would parse anew: a tenth of what a
-- transfer costs the server.
--
-- A currency has one exponent in a ledger: the one that its first account was opened with.
CREATE FUNCTION check_account() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  fault CONSTANT text := CASE
    WHEN new.currency !~ '^[A-Z]{3}$' THEN 'its currency is three capitals'
    WHEN new.status NOT IN ('open', 'frozen', 'closed') THEN 'it is open, frozen or closed'
    WHEN new.exponent NOT BETWEEN 0 AND 4 THEN 'its exponent is 0 to 4'
    WHEN tg_op = 'UPDATE' AND new.exponent <> old.exponent
      THEN 'it keeps its exponent: its balance is counted in it'
  END;
BEGIN
  IF fault IS NOT NULL THEN
    RAISE EXCEPTION 'not an account: %', fault USING ERRCODE = 'check_violation';
  END IF;
  IF tg_op = 'INSERT' THEN
    new.exponent := coalesce(
      (SELECT exponent FROM accounts WHERE code = 'world:' || new.currency),
      (SELECT exponent FROM accounts WHERE currency = new.currency LIMIT 1),
      new.exponent
    );
  END IF;
  RETURN new;
END $$;

CREATE TRIGGER accounts_check BEFORE INSERT OR UPDATE OF currency, exponent, status ON accounts
  FOR EACH ROW EXECUTE FUNCTION check_account();

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% is append-only: correct a transfer by reversing it', tg_table_name
    USING ERRCODE = '23514';  -- an alarm, like a broken constraint: never tried again
END $$;

CREATE TRIGGER transfers_append_only BEFORE UPDATE OR DELETE ON transfers
  FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER transfers_no_truncate BEFORE TRUNCATE ON transfers
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER entries_append_only BEFORE UPDATE OR DELETE ON entries
  FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER entries_no_truncate BEFORE TRUNCATE ON entries
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- The id of `world:<CCY>`: the same in every database, and last in id order, so that a transfer
-- locks the customer's row first and holds the hot one for the shortest time.
CREATE FUNCTION world_account_id(currency text) RETURNS uuid
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
-- Not a text: its operator is found here and now, on nobody's search_path.
RETURN ('ffffffff-ffff-8fff-bfff-000000' || encode(convert_to(currency, 'UTF8'), 'hex'))::uuid;

-- Post one transfer, or return why not. Everything a caller may do wrong is a verdict, not an
-- exception, so that the transaction that records the verdict is still usable.
--
-- Order matters: both accounts are locked in id order before anything is decided, which is what
-- makes crossing transfers queue instead of deadlock; each statement then has a fresh snapshot.
-- NO KEY UPDATE, because FOR UPDATE would block the foreign-key checks of other inserts.
--
-- The amount is in minor units (1234), or, with p_decimal, as it is written (12.34): then the
-- account's own exponent says what it is in minor units. Nothing is rounded.
CREATE FUNCTION post_transfer(
  p_id uuid, p_from uuid, p_to uuid, p_amount numeric, p_currency text,
  p_decimal boolean DEFAULT false,
  OUT verdict text, OUT from_balance bigint, OUT to_balance bigint
) LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  one {schema}.accounts;
  payer {schema}.accounts;
  payee {schema}.accounts;
  minor numeric := p_amount;
  units bigint;
  now timestamptz;
BEGIN
  IF p_from = p_to THEN
    verdict := 'same_account';
    RETURN;
  END IF;
  IF p_amount IS NULL OR p_amount <= 0 THEN
    verdict := 'amount_not_positive';
    RETURN;
  END IF;

  FOR one IN
    SELECT * FROM {schema}.accounts WHERE id IN (p_from, p_to) ORDER BY id FOR NO KEY UPDATE
  LOOP
    IF one.id = p_from THEN payer := one; ELSE payee := one; END IF;
  END LOOP;

  IF p_decimal THEN
    minor := p_amount * 10::numeric ^ payer.exponent;
  END IF;
  verdict := CASE
    WHEN payer.id IS NULL OR payee.id IS NULL THEN 'unknown_account'
    WHEN payer.currency <> p_currency OR payee.currency <> p_currency THEN 'wrong_currency'
    WHEN minor <> trunc(minor) THEN 'too_many_decimals'
    WHEN minor > 9223372036854775807 THEN 'amount_too_large'
  END;
  IF verdict IS NOT NULL THEN
    RETURN;
  END IF;

  units := minor;
  verdict := CASE
    WHEN payer.status <> 'open' OR payee.status <> 'open' THEN 'account_not_open'
    -- Compared with the bound less the amount: the sums themselves could overflow.
    WHEN payee.balance > 9223372036854775807 - units
      OR payer.balance < -9223372036854775807 + units THEN 'balance_out_of_range'
    WHEN payer.floor IS NOT NULL AND payer.balance - units < payer.floor
      THEN 'insufficient_funds'
  END;
  IF verdict IS NOT NULL THEN
    RETURN;
  END IF;

  -- Read under the locks, so that along one account time never runs against the versions.
  now := clock_timestamp();
  INSERT INTO {schema}.transfers (id, from_account, to_account, amount, currency, posted_at)
    VALUES (p_id, p_from, p_to, units, p_currency, now)
    ON CONFLICT (id) DO NOTHING;
  IF NOT FOUND THEN
    -- Another delivery of the same job posted it first: change nothing. The caller finds that out
    -- when it tries to finalize the job.
    verdict := 'already_posted';
    RETURN;
  END IF;

  from_balance := payer.balance - units;
  to_balance := payee.balance + units;
  UPDATE {schema}.accounts SET balance = from_balance, version = payer.version + 1 WHERE id = p_from;
  UPDATE {schema}.accounts SET balance = to_balance, version = payee.version + 1 WHERE id = p_to;
  INSERT INTO {schema}.entries (account_id, version, transfer_id, amount, balance_after, posted_at) VALUES
    (p_from, payer.version + 1, p_id, -units, from_balance, now),
    (p_to, payee.version + 1, p_id, units, to_balance, now);
  verdict := 'posted';
END $$;
