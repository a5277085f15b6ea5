-- What the machine needs: the jobs and how they are accepted, the schedules, the workers.

-- What not every version of the server has. Whichever there is when the schema is made, the names
-- and the answers are the same; what is made for an older version goes on serving on a newer one.
DO $versions$ BEGIN
  IF to_regprocedure('pg_catalog.uuidv7()') IS NOT NULL THEN
    CREATE FUNCTION new_id() RETURNS uuid LANGUAGE sql PARALLEL SAFE
    RETURN pg_catalog.uuidv7();
  ELSE
    -- PostgreSQL 14 to 17. As uuidv7() lays it out: milliseconds, the rest of the moment in twelve
    -- bits, and chance, whose own version and variant bits come from gen_random_uuid().
    CREATE FUNCTION new_id() RETURNS uuid
    LANGUAGE plpgsql PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
    DECLARE
      microseconds CONSTANT bigint := extract(epoch FROM clock_timestamp()) * 1000000;
    BEGIN
      RETURN encode(overlay(
        uuid_send(gen_random_uuid())
        PLACING int8send((microseconds / 1000) << 16 | x'7000'::bigint
                         | microseconds % 1000 * 4096 / 1000)
        FROM 1), 'hex')::uuid;
    END $$;
  END IF;

  IF to_regprocedure('pg_catalog.pg_input_is_valid(text, text)') IS NOT NULL THEN
    CREATE FUNCTION is_json(value text) RETURNS boolean LANGUAGE sql STABLE STRICT PARALLEL SAFE
    RETURN pg_catalog.pg_input_is_valid(value, 'jsonb');
  ELSE
    -- PostgreSQL 14 and 15. A block with an exception cannot run in a parallel worker.
    CREATE FUNCTION is_json(value text) RETURNS boolean
    LANGUAGE plpgsql STABLE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $$
    BEGIN
      RETURN value::jsonb IS NOT NULL;
    EXCEPTION WHEN data_exception OR program_limit_exceeded OR statement_too_complex THEN
      RETURN false;
    END $$;
  END IF;
END $versions$;

-- The kinds of job this database accepts, and on what terms: workers register them.
CREATE TABLE job_kinds (
  kind text CONSTRAINT job_kinds_pkey PRIMARY KEY,
  payload_schema jsonb NOT NULL,
  queue text NOT NULL DEFAULT 'default',
  unique_for interval,
  replaces boolean NOT NULL DEFAULT false,
  -- How long after it could run a job is still wanted.
  expires_after interval,
  registered_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- One row per accepted job, from its acceptance to its final outcome.
CREATE TABLE jobs (
  id uuid DEFAULT new_id() CONSTRAINT jobs_pkey PRIMARY KEY,
  kind text NOT NULL,
  key text,
  -- Of the payload, where it identifies the job: the kind is unique for a time, and there is no key.
  unique_hash bigint,
  payload jsonb NOT NULL,
  queue text NOT NULL DEFAULT 'default',
  state text NOT NULL DEFAULT 'queued'
    CONSTRAINT jobs_state_check
      CHECK (state IN ('queued', 'completed', 'rejected', 'dead', 'cancelled')),
  result jsonb,
  errors jsonb NOT NULL DEFAULT '[]',
  -- Retries by cause; each has its own bound in worker/execution/retry.py.
  attempts bigint NOT NULL DEFAULT 0,
  conflicts integer NOT NULL DEFAULT 0,
  crashes integer NOT NULL DEFAULT 0,
  blocked_since timestamptz,
  blocked_by text,
  enqueued_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  run_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  leased_by text,
  dispatched_at timestamptz,
  finished_at timestamptz,
  purgeable boolean NOT NULL DEFAULT false,
  redis_id text,
  traceparent text,
  -- The webhook endpoint that hears of the job's end.
  notify text,
  payload_check bigint NOT NULL,
  -- See 0001_batches.sql.
  batch_id uuid,
  -- The job that enqueued this one while it ran; it may have been deleted since.
  parent_id uuid,
  -- A job that answers `Continue` runs in slices: how many took effect, where the next one begins,
  -- and how far the job had shown to be.
  slices integer NOT NULL DEFAULT 0,
  cursor jsonb,
  progress jsonb,
  -- From when it is not wanted any more; null once it has begun.
  expires_at timestamptz,
  CONSTRAINT jobs_finished_check CHECK ((state = 'queued') = (finished_at IS NULL))
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02);
CREATE UNIQUE INDEX jobs_kind_key_key ON jobs (kind, key) WHERE key IS NOT NULL;
CREATE UNIQUE INDEX jobs_unique_hash_key ON jobs (kind, unique_hash) WHERE unique_hash IS NOT NULL;
CREATE INDEX jobs_runnable_idx ON jobs (queue, run_at, id)
  WHERE state = 'queued' AND blocked_by IS DISTINCT FROM 'paused';
-- What Redis never had: the relay's look for it costs as much as there is to find.
CREATE INDEX jobs_undispatched_idx ON jobs (queue, run_at, id)
  WHERE state = 'queued' AND dispatched_at IS NULL AND blocked_by IS DISTINCT FROM 'paused';
-- What Redis was sent, by when it could have run since: it is sent again if that is long ago.
CREATE INDEX jobs_dispatched_idx ON jobs (queue, greatest(run_at, dispatched_at))
  WHERE state = 'queued' AND dispatched_at IS NOT NULL AND blocked_by IS DISTINCT FROM 'paused';
-- Under what processes died: without Redis, each of these is claimed for itself.
CREATE INDEX jobs_suspect_idx ON jobs (run_at, id)
  WHERE state = 'queued' AND crashes > 0 AND blocked_by IS DISTINCT FROM 'paused';
-- What waits for its environment or for a newer worker, as health and metrics count it.
CREATE INDEX jobs_blocked_idx ON jobs (blocked_by, kind)
  WHERE state = 'queued' AND blocked_by IS NOT NULL;
CREATE INDEX jobs_batch_idx ON jobs (batch_id, state) WHERE batch_id IS NOT NULL;
CREATE INDEX jobs_parent_idx ON jobs (parent_id) WHERE parent_id IS NOT NULL;
CREATE INDEX jobs_dead_idx ON jobs (finished_at, id) WHERE state = 'dead';
-- What retention looks for. A job that completed and is kept forever is not in it.
CREATE INDEX jobs_purgeable_idx ON jobs (kind, finished_at)
  WHERE purgeable OR state = 'cancelled';

-- What the payload was when the job was accepted, so that the audit finds one that changed since.
-- Against accidents: whoever means to deceive can write both columns. What is given is kept, so
-- that a restored dump says what it said before. A stored generated column would follow the change.
CREATE FUNCTION set_payload_check() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.payload_check := pg_catalog.hashtextextended(NEW.payload::pg_catalog.text, 0);
  RETURN NEW;
END $$;
CREATE TRIGGER jobs_set_payload_check BEFORE INSERT ON jobs
  FOR EACH ROW WHEN (NEW.payload_check IS NULL) EXECUTE FUNCTION set_payload_check();

-- Up to when each schedule is checked: every run before was created, or dropped by its policy.
CREATE TABLE schedules (
  name text CONSTRAINT schedules_pkey PRIMARY KEY,
  spec text NOT NULL,
  checked_until timestamptz NOT NULL,
  missed bigint NOT NULL DEFAULT 0
);

-- The runs of the schedules: each is inserted in the transaction that accepts its job, and is
-- deleted with the job.
CREATE TABLE occurrences (
  schedule text NOT NULL CONSTRAINT occurrences_schedule_fkey REFERENCES schedules (name),
  fire_at timestamptz NOT NULL,
  job_id uuid NOT NULL CONSTRAINT occurrences_job_id_fkey REFERENCES jobs (id) ON DELETE CASCADE,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  CONSTRAINT occurrences_pkey PRIMARY KEY (schedule, fire_at)
);
CREATE INDEX occurrences_job_id_idx ON occurrences (job_id);

-- What does not run at the moment: one kind of job, or one queue. A pause that has ended stays for
-- a while, until its jobs are let go.
CREATE TABLE pauses (
  target text CONSTRAINT pauses_pkey PRIMARY KEY
    CONSTRAINT pauses_target_check CHECK (target ~ '^(kind|queue):.'),
  by text NOT NULL,
  reason text NOT NULL,
  since timestamptz NOT NULL DEFAULT clock_timestamp(),
  until timestamptz
);

CREATE FUNCTION pause_target(
  p_target text, p_reason text, p_by text, p_until timestamptz
) RETURNS void LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  INSERT INTO {schema}.pauses AS p (target, by, reason, until)
    VALUES (p_target, left(p_by, 200), left(p_reason, 500), p_until)
    ON CONFLICT (target) DO UPDATE
    SET by = excluded.by, reason = excluded.reason, until = excluded.until,
        since = CASE WHEN p.until <= clock_timestamp() THEN excluded.since ELSE p.since END
$$;
CREATE FUNCTION resume_target(p_target text) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  UPDATE {schema}.pauses SET until = clock_timestamp()
    WHERE target = p_target AND (until IS NULL OR until > clock_timestamp());
  RETURN FOUND;
END $$;

-- One row per worker process, refreshed every few seconds, deleted after a long silence.
CREATE TABLE workers (
  id uuid CONSTRAINT workers_pkey PRIMARY KEY,
  host text NOT NULL,
  pid bigint NOT NULL,
  version text NOT NULL,
  kinds text[] NOT NULL,
  state text NOT NULL
    CONSTRAINT workers_state_check CHECK (state IN ('running', 'draining', 'stopped')),
  mode text NOT NULL CONSTRAINT workers_mode_check CHECK (mode IN ('normal', 'degraded')),
  jobs_running bigint NOT NULL DEFAULT 0,
  queue_key text NOT NULL,
  queues text[] NOT NULL,
  started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  seen_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50);

-- One set of rules for accepting a job, whichever door it comes through.
--
-- Whoever calls a function has a search_path of their own, and perhaps objects and operators of the
-- same names. So every function has its own search_path, with nobody's objects in it, and ours are
-- named with their schema, {schema}. They run with the rights of their caller.

-- Whether `value` begins with a day of the calendar, as in 2024-02-29. Counted rather than cast: a
-- cast would raise.
CREATE FUNCTION is_day(value text) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF value !~ '^[0-9]{4}-(0[1-9]|1[0-2])-[0-9]{2}' OR left(value, 4) = '0000' THEN
    RETURN false;
  END IF;
  RETURN substr(value, 9, 2)::int BETWEEN 1 AND extract(
    day FROM make_date(left(value, 4)::int, substr(value, 6, 2)::int, 1) + interval '1 month -1 day');
END $$;

-- Whether `value` has the string `format`, read as pydantic reads JSON. What pydantic takes, this
-- takes; a unix time in a string is not checked for its range, and unknown formats always pass.
CREATE FUNCTION has_format(format text, value text) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  uuid_form CONSTANT text := '[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}';
  unix_time CONSTANT text := '^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)$';
BEGIN
  CASE format
    WHEN 'uuid' THEN
      RETURN value ~ format('^((urn:uuid:)?%1$s|\{%1$s\}|[0-9a-fA-F]{32})$', uuid_form);
    WHEN 'date' THEN
      RETURN value ~ unix_time
        OR (value ~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}$' AND {schema}.is_day(value));
    WHEN 'date-time' THEN
      RETURN value ~ unix_time
        OR (value ~ ('^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt _]([01][0-9]|2[0-3]):[0-5][0-9]'
                     '(:[0-5][0-9]([.,][0-9]+)?)?'
                     '([Zz]|[+\u2212-]([01][0-9]|2[0-3]):?[0-5][0-9])?$')
            AND {schema}.is_day(value));
    ELSE
      RETURN true;
  END CASE;
END $$;

-- What is wrong with `value` under a JSON Schema, as one sentence, or NULL. It knows the subset
-- that pydantic writes for a job's payload; what it does not know passes, and the worker decides.
-- It never repeats the value itself: payloads are private.
CREATE FUNCTION schema_fault(schema jsonb, value jsonb, path text, root jsonb) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  kind text := jsonb_typeof(value);
  field text;
  option jsonb;
  fault text;
  plain text;
  amount numeric;
  items int;
BEGIN
  IF schema ? '$ref' THEN
    RETURN {schema}.schema_fault(
      root #> string_to_array(substr(schema->>'$ref', 3), '/'), value, path, root);
  END IF;

  IF schema ? 'anyOf' OR schema ? 'oneOf' THEN
    FOR option IN SELECT * FROM jsonb_array_elements(coalesce(schema->'anyOf', schema->'oneOf')) LOOP
      fault := {schema}.schema_fault(option, value, path, root);
      EXIT WHEN fault IS NULL;
    END LOOP;
    RETURN fault;
  END IF;

  IF schema ? 'const' AND value <> schema->'const' THEN
    RETURN format('%s is not the one value allowed', path);
  END IF;
  IF schema ? 'enum' AND NOT EXISTS (
    SELECT FROM jsonb_array_elements(schema->'enum') AS one(allowed)
    WHERE one.allowed = schema_fault.value
  ) THEN
    RETURN format('%s is not one of %s', path, schema->'enum');
  END IF;
  IF schema ? 'type' AND NOT (
    schema->>'type' = kind
    -- 1.0 is a number that is not an integer, as in Python; 1e2 is stored as 100.
    OR (schema->>'type' = 'integer' AND kind = 'number' AND scale((value #>> '{}')::numeric) = 0)
  ) THEN
    RETURN format('%s is a %s, not a %s', path, kind, schema->>'type');
  END IF;

  CASE kind
    WHEN 'object' THEN
      FOR field IN SELECT jsonb_array_elements_text(coalesce(schema->'required', '[]')) LOOP
        IF NOT value ? field THEN RETURN format('%s has no %s', path, field); END IF;
      END LOOP;
      FOR field IN SELECT jsonb_object_keys(value) LOOP
        IF schema->'properties' ? field THEN
          fault := {schema}.schema_fault(
            schema->'properties'->field, value->field, path || '.' || field, root);
        ELSIF schema->'additionalProperties' = 'false' THEN
          fault := format('%s has a field that the kind does not know', path);
        ELSIF jsonb_typeof(schema->'additionalProperties') = 'object' THEN
          fault := {schema}.schema_fault(
            schema->'additionalProperties', value->field, path || '.*', root);
        END IF;
        IF fault IS NOT NULL THEN RETURN fault; END IF;
      END LOOP;
    WHEN 'array' THEN
      items := jsonb_array_length(value);
      IF items < coalesce((schema->>'minItems')::int, 0)
        -- A set takes repeated items and then has fewer; the worker counts those.
        OR (items > coalesce((schema->>'maxItems')::int, 2147483647) AND NOT schema ? 'uniqueItems')
      THEN
        RETURN format('%s has %s items', path, items);
      END IF;
      IF schema ? 'items' OR schema ? 'prefixItems' THEN
        FOR position IN 0 .. items - 1 LOOP
          option := coalesce(schema->'prefixItems'->position, schema->'items');
          IF jsonb_typeof(option) = 'object' THEN
            fault := {schema}.schema_fault(
              option, value->position, format('%s[%s]', path, position), root);
            IF fault IS NOT NULL THEN RETURN fault; END IF;
          END IF;
        END LOOP;
      END IF;
    WHEN 'string' THEN
      plain := value #>> '{}';
      IF length(plain) < coalesce((schema->>'minLength')::int, 0)
        OR length(plain) > coalesce((schema->>'maxLength')::int, 2147483647) THEN
        RETURN format('%s is %s characters long', path, length(plain));
      END IF;
      -- The collation keeps [A-Z] what it is in a pattern, whatever the database's own.
      IF schema ? 'pattern' AND plain !~ (schema->>'pattern') COLLATE "C" THEN
        RETURN format('%s does not match %s', path, schema->>'pattern');
      END IF;
      IF schema ? 'format' AND NOT {schema}.has_format(schema->>'format', plain) THEN
        RETURN format('%s is not a %s', path, schema->>'format');
      END IF;
    WHEN 'number' THEN
      amount := (value #>> '{}')::numeric;
      IF amount < (schema->>'minimum')::numeric OR amount <= (schema->>'exclusiveMinimum')::numeric
      THEN
        RETURN format('%s is too small', path);
      END IF;
      IF amount > (schema->>'maximum')::numeric OR amount >= (schema->>'exclusiveMaximum')::numeric
      THEN
        RETURN format('%s is too large', path);
      END IF;
    ELSE
      NULL;
  END CASE;
  RETURN NULL;
END $$;

-- Accept one job, or return why not: a refusal leaves the caller's transaction usable.
-- The same key (or id) with the same payload returns the job accepted before; with another payload
-- it is refused. `created` tells the two apart. Payloads are the same if jsonb says so, which
-- compares numbers by value.
--
-- Without a key, a payload is unique for as long as its kind says (`unique_for`). Where the kind
-- says `replaces`, a job that has not begun takes the newer payload and time, never later than
-- `unique_for` after its acceptance; one that is over has lost its key to the new job.
--
-- `fault` is NULL or a SQLSTATE: TL001 unknown kind, TL002 invalid payload, TL003 key conflict,
-- TL004 invalid key, TL005 invalid run_at, TL007 in another batch.
CREATE FUNCTION try_enqueue_job(
  p_kind text, p_payload jsonb, p_key text, p_run_at timestamptz, p_id uuid, p_traceparent text,
  p_batch uuid DEFAULT NULL, p_parent uuid DEFAULT NULL,
  OUT id uuid, OUT state text, OUT created boolean, OUT replaced boolean,
  OUT fault text, OUT message text, OUT hint text, OUT queue text
) LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  terms {schema}.job_kinds;
  payload_hash bigint;
  due CONSTANT timestamptz := coalesce(p_run_at, clock_timestamp());
  payload_bytes CONSTANT int := octet_length(p_payload::text);
  misfit text;
  stored {schema}.jobs;
BEGIN
  SELECT * INTO terms FROM {schema}.job_kinds WHERE kind = p_kind;
  IF NOT FOUND THEN
    fault := 'TL001';
    message := format('unknown job kind %s', quote_nullable(left(p_kind, 100)));
    hint := format('known kinds: %s', (SELECT string_agg(kind, ', ' ORDER BY kind) FROM {schema}.job_kinds));
    RETURN;
  END IF;
  IF p_key = '' OR length(p_key) > 200 THEN
    fault := 'TL004';
    message := format('a key has 1 to 200 characters, this one %s', length(p_key));
    hint := 'use an id of your own, such as order-42';
    RETURN;
  END IF;
  -- Drivers read other years and infinity as errors, and one such row would stop a relay.
  IF p_run_at NOT BETWEEN '1970-01-01 00:00:00+00' AND '9999-12-31 00:00:00+00' THEN
    fault := 'TL005';
    message := 'run_at is outside the years 1970 to 9999';
    hint := 'leave it out, or NULL, for now';
    RETURN;
  END IF;
  misfit := CASE
    WHEN p_payload IS NULL THEN 'there is none, or it is JSON that cannot be stored'
    WHEN payload_bytes > 65536 THEN 'the payload is larger than 65536 bytes'
    -- Deeper than this, JSON libraries disagree about what they read and write.
    WHEN payload_bytes > 200 AND jsonb_path_exists(
      p_payload, 'strict $.**{100} ? (@.type() == "array" || @.type() == "object")')
      THEN 'the payload is nested more than 100 deep'
    ELSE {schema}.schema_fault(terms.payload_schema, p_payload, 'payload', terms.payload_schema)
  END;
  IF misfit IS NOT NULL THEN
    fault := 'TL002';
    message := format('invalid payload for %s: %s', p_kind, misfit);
    hint := 'the payload of every kind is described in docs/jobs.md';
    RETURN;
  END IF;

  IF terms.unique_for IS NOT NULL AND p_key IS NULL THEN
    payload_hash := jsonb_hash_extended(p_payload, 0);
  END IF;
  replaced := false;
  LOOP
    INSERT INTO {schema}.jobs AS j (id, kind, key, unique_hash, payload, queue, run_at, expires_at,
                                     traceparent, batch_id, parent_id, payload_check)
      VALUES (coalesce(p_id, {schema}.new_id()), p_kind, p_key, payload_hash, p_payload,
              terms.queue, due, due + terms.expires_after,
              -- A caller's context for tracing is 55 characters; anything long is none.
              CASE WHEN length(p_traceparent) <= 200 THEN p_traceparent END,
              p_batch, p_parent, hashtextextended(p_payload::text, 0))
      ON CONFLICT DO NOTHING
      RETURNING j.id, j.state, j.queue
        INTO try_enqueue_job.id, try_enqueue_job.state, try_enqueue_job.queue;
    created := FOUND;
    IF created THEN
      RETURN;
    END IF;
    -- A new statement has a new snapshot: it sees the row that the insert waited for.
    SELECT * INTO stored FROM {schema}.jobs
      WHERE id = p_id OR (kind = p_kind AND (key = p_key OR unique_hash = payload_hash))
      ORDER BY (id = p_id) DESC NULLS LAST LIMIT 1;
    -- Retention deleted the row in between: insert again.
    CONTINUE WHEN NOT FOUND;
    EXIT WHEN stored.id = p_id OR terms.unique_for IS NULL;
    IF (CASE
      WHEN terms.replaces THEN stored.state <> 'queued' OR stored.slices > 0
      WHEN p_key IS NOT NULL THEN false
      ELSE stored.state IN ('dead', 'cancelled') OR stored.payload <> p_payload
        OR stored.enqueued_at <= clock_timestamp() - terms.unique_for
    END) THEN
      -- What identified it is free for a new job, which the next round inserts.
      UPDATE {schema}.jobs SET key = NULL, unique_hash = NULL
        WHERE id = stored.id AND state = stored.state;
      CONTINUE;
    END IF;
    EXIT WHEN NOT terms.replaces;
    -- A run with the older payload meets the newer one at its fence, and begins anew.
    UPDATE {schema}.jobs AS j
      SET payload = p_payload, payload_check = hashtextextended(p_payload::text, 0),
          run_at = least(due, j.enqueued_at + terms.unique_for),
          expires_at = least(due, j.enqueued_at + terms.unique_for) + terms.expires_after,
          attempts = 0, conflicts = 0, crashes = 0, blocked_since = NULL, blocked_by = NULL,
          leased_by = NULL
      WHERE j.id = stored.id AND j.state = 'queued' AND j.slices = 0
      RETURNING j.* INTO stored;
    replaced := FOUND;
    EXIT WHEN replaced;
  END LOOP;
  IF stored.kind <> p_kind OR stored.payload <> p_payload THEN
    fault := 'TL003';
    message := format('job %s already has this key with another payload', stored.id);
    hint := 'use a new key for a new payload';
    created := NULL;
    RETURN;
  END IF;
  IF p_batch IS DISTINCT FROM stored.batch_id AND p_batch IS NOT NULL THEN
    UPDATE {schema}.jobs SET batch_id = p_batch
      WHERE id = stored.id AND coalesce(batch_id, p_batch) = p_batch;
    IF NOT FOUND THEN
      fault := 'TL007';
      message := format('job %s is in another batch already', stored.id);
      hint := 'a job is in one batch: use a new key';
      created := NULL;
      RETURN;
    END IF;
  END IF;
  id := stored.id;
  state := stored.state;
END $$;

-- Accept one job, or raise why not (SQLSTATE TL001 to TL005, see try_enqueue_job).
CREATE FUNCTION accept_job(
  p_kind text, p_payload jsonb, p_key text, p_run_at timestamptz, p_id uuid, p_traceparent text,
  p_parent uuid DEFAULT NULL, p_batch uuid DEFAULT NULL,
  OUT id uuid, OUT state text, OUT created boolean, OUT replaced boolean, OUT queue text
) LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  answer record;
BEGIN
  SELECT * INTO answer
    FROM {schema}.try_enqueue_job(
      p_kind, p_payload, p_key, p_run_at, p_id, p_traceparent, p_parent => p_parent,
      p_batch => p_batch);
  IF answer.fault IS NOT NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = answer.fault, MESSAGE = answer.message, HINT = answer.hint;
  END IF;
  id := answer.id;
  state := answer.state;
  created := answer.created;
  replaced := answer.replaced;
  queue := answer.queue;
END $$;

-- Accept the jobs that a running one enqueues, in its own transaction, or raise why not. Each is an
-- object with kind and payload, and maybe id, key, run_at, delay (in seconds), traceparent, and
-- in_batch: true where it joins the running job's own batch. Returns those that are new, with their
-- time where it is not now, and their queue; where a key is taken, the job that has it stands. Keys
-- are taken in order, so that two jobs with the same ones cannot deadlock.
CREATE FUNCTION enqueue_follow_ups(p_parent uuid, p_follow_ups jsonb)
RETURNS TABLE (id uuid, run_at timestamptz, queue text)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  one jsonb;
  own_batch uuid;
  accepted record;
BEGIN
  FOR one IN
    SELECT value FROM jsonb_array_elements(p_follow_ups) WITH ORDINALITY AS each (value, position)
    ORDER BY (value->>'key') || (value->>'kind'), position
  LOOP
    run_at := coalesce((one->>'run_at')::timestamptz,
                       clock_timestamp() + make_interval(secs => (one->>'delay')::float8));
    IF (one->>'in_batch')::boolean AND own_batch IS NULL THEN
      SELECT batch_id INTO own_batch FROM {schema}.jobs WHERE jobs.id = p_parent;
      IF own_batch IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'TL007',
          MESSAGE = format('job %s is in no batch that another could join', p_parent),
          HINT = 'leave in_batch out';
      END IF;
    END IF;
    SELECT * INTO accepted FROM {schema}.accept_job(
      one->>'kind', one->'payload', one->>'key', run_at, (one->>'id')::uuid,
      one->>'traceparent', p_parent,
      p_batch => CASE WHEN (one->>'in_batch')::boolean THEN own_batch END);
    IF accepted.created THEN
      id := accepted.id;
      queue := accepted.queue;
      RETURN NEXT;
    END IF;
  END LOOP;
END $$;

-- The public door for every language: psql> SELECT enqueue_job('transfer_funds', '{…}', 'order-42');
CREATE FUNCTION enqueue_job(
  kind text, payload jsonb, key text DEFAULT NULL, run_at timestamptz DEFAULT now()
) RETURNS uuid LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  SELECT id FROM {schema}.accept_job($1, $2, $3, $4, NULL, NULL)
$$;

-- Cancel a job that has not taken effect; false when it has, or when there is no such job. Where a
-- handler is running the job, its transaction is rolled back when it tries to finalize the job.
-- A reason is cut after 500 characters.
CREATE FUNCTION cancel_job(job uuid, reason text DEFAULT 'cancelled by its caller')
RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  UPDATE {schema}.jobs SET state = 'cancelled', finished_at = clock_timestamp(),
                  result = jsonb_build_object('reason', left(reason, 500))
    WHERE id = job AND state = 'queued';
  RETURN FOUND;
END $$;

-- Let jobs of a kind begin no more, in no process from a second later on: until somebody resumes it,
-- or until the time given. Jobs are accepted all the same, and what runs goes on. Again: with the new
-- reason and end. TL001: the database knows no such kind.
CREATE FUNCTION pause_kind(
  kind text, reason text, by text DEFAULT session_user, until timestamptz DEFAULT NULL
) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM {schema}.job_kinds AS k WHERE k.kind = $1) THEN
    RAISE EXCEPTION USING
      ERRCODE = 'TL001', MESSAGE = format('unknown job kind %s', quote_nullable(left($1, 100))),
      HINT = format('known kinds: %s',
                    (SELECT string_agg(k.kind, ', ' ORDER BY k.kind) FROM {schema}.job_kinds AS k));
  END IF;
  PERFORM {schema}.pause_target('kind:' || $1, $2, $3, $4);
END $$;

-- The same for a queue, whose name may be one that no job had yet.
CREATE FUNCTION pause_queue(
  queue text, reason text, by text DEFAULT session_user, until timestamptz DEFAULT NULL
) RETURNS void LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  SELECT {schema}.pause_target('queue:' || $1, $2, $3, $4)
$$;

-- End a pause; false where there is none.
CREATE FUNCTION resume_kind(kind text) RETURNS boolean
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  SELECT {schema}.resume_target('kind:' || $1)
$$;
CREATE FUNCTION resume_queue(queue text) RETURNS boolean
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  SELECT {schema}.resume_target('queue:' || $1)
$$;

-- Where other services hear that a job has ended. The secrets are what deliveries are signed with:
-- several, so that one can be replaced while receivers still know the other.
CREATE TABLE webhook_endpoints (
  name text CONSTRAINT webhook_endpoints_pkey PRIMARY KEY,
  url text NOT NULL,
  secrets text[] NOT NULL CONSTRAINT webhook_endpoints_secrets_check CHECK (cardinality(secrets) > 0),
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  failing_since timestamptz,
  disabled_at timestamptz,
  disabled_because text
);

-- Enqueue the delivery of a job's end to an endpoint. One job can end several times, if it is
-- replayed; each end is told once. It must not fail: the job's own end would fail with it.
CREATE FUNCTION announce_end(job {schema}.jobs) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  INSERT INTO {schema}.jobs (kind, key, payload)
  VALUES ('deliver_webhook',
          format('%s at %s', job.id, extract(epoch FROM job.finished_at)),
          jsonb_build_object(
            'endpoint', job.notify, 'job_id', job.id, 'job_kind', job.kind, 'state', job.state,
            'ended_at', to_char(job.finished_at AT TIME ZONE 'UTC',
                                'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')))
  ON CONFLICT DO NOTHING
$$;

CREATE FUNCTION announce_job() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM {schema}.announce_end(NEW);
  RETURN NULL;
END $$;

-- In the transaction that ends the job, whatever ends it.
CREATE TRIGGER jobs_announce AFTER UPDATE OF state ON jobs FOR EACH ROW
  WHEN (NEW.notify IS NOT NULL AND OLD.state = 'queued' AND NEW.state <> 'queued')
  EXECUTE FUNCTION announce_job();

-- Have an endpoint hear of a job's end; at once, if it has ended. False when there is no such job.
-- SQLSTATE TL006: there is no such endpoint.
CREATE FUNCTION notify_end(job uuid, endpoint text)
RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  ended {schema}.jobs;
BEGIN
  IF NOT EXISTS (SELECT FROM {schema}.webhook_endpoints WHERE name = endpoint) THEN
    RAISE EXCEPTION USING ERRCODE = 'TL006',
      MESSAGE = format('unknown webhook endpoint %s', quote_nullable(left(endpoint, 100))),
      HINT = 'add it with: python -m worker webhooks add NAME URL';
  END IF;
  UPDATE {schema}.jobs SET notify = endpoint WHERE id = job RETURNING * INTO ended;
  IF NOT FOUND THEN
    RETURN false;
  END IF;
  IF ended.state <> 'queued' THEN
    PERFORM {schema}.announce_end(ended);
  END IF;
  RETURN true;
END $$;
