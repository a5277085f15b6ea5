-- Batches: jobs that belong together, and the one job that follows when all of them are over.
--
-- No counter says how many are left: it would be a row that every member writes, and wrong after
-- the first accident. A batch has fired when somebody found no member queued, and wrote so.

CREATE TABLE batches (
  id uuid DEFAULT new_id() CONSTRAINT batches_pkey PRIMARY KEY,
  key text CONSTRAINT batches_key_key UNIQUE,
  -- Of what was asked for: the same key with something else is refused.
  request_hash bigint NOT NULL,
  then_kind text,
  then_payload jsonb,
  -- The webhook endpoint that hears of the end of the job that follows.
  then_notify text,
  -- The id that the job has which follows: known from the beginning.
  then_id uuid NOT NULL DEFAULT new_id(),
  on_dead text NOT NULL DEFAULT 'go_on'
    CONSTRAINT batches_on_dead_check CHECK (on_dead IN ('go_on', 'hold')),
  traceparent text,
  opened_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  fired_at timestamptz,
  cancelled_at timestamptz,
  -- The members by state, when it fired.
  counts jsonb
);
CREATE INDEX batches_open_idx ON batches (opened_at, id)
  WHERE fired_at IS NULL AND cancelled_at IS NULL;
CREATE INDEX batches_then_id_idx ON batches (then_id);

-- Fire a batch unless a member is queued, or one is dead and the batch is held by that; true if it
-- was fired now. The job that follows is accepted in this transaction, under the key `batch:ID`. If
-- its kind's payload has a field `batch`, that gets the batch's id and its members by state.
CREATE FUNCTION fire_batch(p_batch uuid) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  batch {schema}.batches;
  tally jsonb;
  payload jsonb;
  follows record;
BEGIN
  SELECT * INTO batch FROM {schema}.batches
    WHERE id = p_batch AND fired_at IS NULL AND cancelled_at IS NULL FOR UPDATE;
  IF NOT FOUND THEN
    RETURN false;
  END IF;
  -- One statement, one snapshot: a member adds others in the transaction that ends itself, so
  -- either it is seen queued, or those are.
  SELECT coalesce(jsonb_object_agg(state, members), '{}') INTO tally FROM (
    SELECT state, count(*) AS members FROM {schema}.jobs WHERE batch_id = p_batch GROUP BY state
  ) AS by_state;
  IF tally ? 'queued' OR (batch.on_dead = 'hold' AND tally ? 'dead') THEN
    RETURN false;
  END IF;
  UPDATE {schema}.batches SET fired_at = clock_timestamp(), counts = tally WHERE id = p_batch;
  IF batch.then_kind IS NULL THEN
    RETURN true;
  END IF;
  payload := batch.then_payload;
  IF EXISTS (
    SELECT FROM {schema}.job_kinds
    WHERE kind = batch.then_kind AND payload_schema->'properties' ? 'batch'
  ) THEN
    payload := payload || jsonb_build_object('batch', tally || jsonb_build_object('id', p_batch));
  END IF;
  SELECT * INTO follows FROM {schema}.try_enqueue_job(
    batch.then_kind, payload, 'batch:' || p_batch, NULL, batch.then_id, batch.traceparent);
  IF follows.fault IS NOT NULL THEN
    -- The kind has changed since, or somebody took the key: the worker decides, and an operator
    -- sees it. A batch never hangs.
    INSERT INTO {schema}.jobs (id, kind, payload, queue, traceparent)
      VALUES (batch.then_id, batch.then_kind, payload, coalesce(
        (SELECT queue FROM {schema}.job_kinds WHERE kind = batch.then_kind), 'default'),
        batch.traceparent);
  END IF;
  UPDATE {schema}.jobs SET notify = batch.then_notify
    WHERE id = batch.then_id AND EXISTS (
      SELECT FROM {schema}.webhook_endpoints WHERE name = batch.then_notify);
  RETURN true;
END $$;

-- Open a batch and accept its members, or return why not; the first row is the batch, the others
-- are its members in their order. Each member is an object with kind and payload, and maybe key,
-- run_at, delay (in seconds), traceparent and id. A member that was accepted before joins the batch;
-- one that is in another batch is refused (TL007). The same key again returns the batch opened
-- before, without its members, if it was asked for the same. An empty batch fires at once.
CREATE FUNCTION try_open_batch(
  p_members jsonb, p_then_kind text, p_then_payload jsonb, p_key text, p_on_dead text, p_id uuid,
  p_traceparent text, p_parent uuid DEFAULT NULL, p_then_notify text DEFAULT NULL
) RETURNS TABLE (
  "position" bigint, id uuid, created boolean, replaced boolean, run_at timestamptz,
  then_id uuid, fault text, message text, hint text, queue text
) LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  batch {schema}.batches;
  asked CONSTANT bigint := jsonb_hash_extended(jsonb_build_array(
    (SELECT jsonb_agg(member - '{id,run_at,delay,traceparent,in_batch}'::text[] ORDER BY n)
     FROM jsonb_array_elements(p_members) WITH ORDINALITY AS asked_for (member, n)),
    p_then_kind, p_then_payload, p_on_dead), 0);
  then_schema jsonb;
  misfit text;
BEGIN
  "position" := 0;
  IF p_key = '' OR length(p_key) > 200 THEN
    fault := 'TL004';
    message := format('a key has 1 to 200 characters, this one %s', length(p_key));
    hint := 'use an id of your own, such as payout-2026-11';
    RETURN NEXT;
    RETURN;
  END IF;
  IF p_then_notify IS NOT NULL
    AND NOT EXISTS (SELECT FROM {schema}.webhook_endpoints WHERE name = p_then_notify)
  THEN
    fault := 'TL006';
    message := format('unknown webhook endpoint %s', quote_nullable(left(p_then_notify, 100)));
    hint := 'add it with: python -m worker webhooks add NAME URL';
    RETURN NEXT;
    RETURN;
  END IF;
  IF p_then_kind IS NOT NULL THEN
    SELECT payload_schema INTO then_schema FROM {schema}.job_kinds WHERE kind = p_then_kind;
    misfit := CASE
      WHEN then_schema IS NULL THEN 'the database does not know this kind'
      ELSE {schema}.schema_fault(then_schema, p_then_payload, 'payload', then_schema)
    END;
    IF misfit IS NOT NULL THEN
      fault := CASE WHEN then_schema IS NULL THEN 'TL001' ELSE 'TL002' END;
      message := format('the job that follows, %s: %s', quote_literal(left(p_then_kind, 100)), misfit);
      hint := 'the payload of every kind is described in docs/jobs.md';
      RETURN NEXT;
      RETURN;
    END IF;
  END IF;

  LOOP
    INSERT INTO {schema}.batches AS b
        (id, key, request_hash, then_kind, then_payload, then_notify, on_dead, traceparent)
      VALUES (coalesce(p_id, {schema}.new_id()), p_key, asked, p_then_kind, p_then_payload,
              p_then_notify, p_on_dead,
              CASE WHEN length(p_traceparent) <= 200 THEN p_traceparent END)
      ON CONFLICT DO NOTHING
      RETURNING b.* INTO batch;
    created := FOUND;
    EXIT WHEN created;
    SELECT * INTO batch FROM {schema}.batches WHERE id = p_id OR key = p_key
      ORDER BY (id = p_id) DESC NULLS LAST LIMIT 1;
    EXIT WHEN FOUND;
  END LOOP;
  IF NOT created AND batch.request_hash <> asked THEN
    created := NULL;
    fault := 'TL003';
    message := format('batch %s already has this key, and is another one', batch.id);
    hint := 'use a new key for a new batch';
    RETURN NEXT;
    RETURN;
  END IF;
  id := batch.id;
  then_id := CASE WHEN batch.then_kind IS NOT NULL THEN batch.then_id END;
  RETURN NEXT;
  IF NOT created THEN
    RETURN;
  END IF;
  RETURN QUERY
    SELECT member.position, answer.id, answer.created, answer.replaced, due.run_at, NULL::uuid,
           answer.fault, answer.message, answer.hint, answer.queue
    FROM ROWS FROM (
      jsonb_to_recordset(p_members)
      AS (kind text, payload jsonb, key text, run_at timestamptz, delay float8, traceparent text,
          id uuid)
    ) WITH ORDINALITY AS member (kind, payload, key, run_at, delay, traceparent, id, position)
    CROSS JOIN LATERAL (
      SELECT coalesce(
        member.run_at, clock_timestamp() + make_interval(secs => member.delay)) AS run_at
    ) AS due
    CROSS JOIN LATERAL {schema}.try_enqueue_job(
      member.kind, member.payload, member.key, due.run_at, member.id, member.traceparent,
      p_parent => p_parent, p_batch => batch.id
    ) AS answer;
  IF NOT FOUND THEN
    PERFORM {schema}.fire_batch(batch.id);
  END IF;
END $$;

-- The public door for every language. Raises why not (SQLSTATE TL001 to TL005, TL007).
CREATE FUNCTION open_batch(
  members jsonb, then_kind text, then_payload jsonb, key text DEFAULT NULL,
  on_dead text DEFAULT 'go_on'
) RETURNS uuid LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  answer record;
  batch uuid;
BEGIN
  FOR answer IN
    SELECT * FROM {schema}.try_open_batch(members, then_kind, then_payload, key, on_dead, NULL, NULL)
  LOOP
    IF answer.fault IS NOT NULL THEN
      RAISE EXCEPTION USING
        ERRCODE = answer.fault, MESSAGE = answer.message, HINT = answer.hint;
    END IF;
    batch := coalesce(batch, answer.id);
  END LOOP;
  RETURN batch;
END $$;

-- Open a batch in a running job's transaction, or raise why not. It is an object with id, members,
-- then_kind, then_payload, then_notify, key, on_dead and traceparent. Returns the members that are
-- new, with their time.
CREATE FUNCTION open_batch_in_job(p_parent uuid, p_batch jsonb)
RETURNS TABLE (id uuid, run_at timestamptz, queue text)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  answer record;
BEGIN
  FOR answer IN
    SELECT * FROM {schema}.try_open_batch(
      p_batch->'members', p_batch->>'then_kind', nullif(p_batch->'then_payload', 'null'),
      p_batch->>'key', p_batch->>'on_dead', (p_batch->>'id')::uuid, p_batch->>'traceparent',
      p_parent, p_batch->>'then_notify')
  LOOP
    IF answer.fault IS NOT NULL THEN
      RAISE EXCEPTION USING
        ERRCODE = answer.fault, MESSAGE = answer.message, HINT = answer.hint;
    END IF;
    IF answer.position > 0 AND answer.created THEN
      id := answer.id;
      run_at := answer.run_at;
      queue := answer.queue;
      RETURN NEXT;
    END IF;
  END LOOP;
END $$;

-- How far a batch is; no row where there is none. It is open, fired, cancelled, or held by its dead.
-- Members that retention has deleted since it fired are counted as `deleted`.
CREATE FUNCTION batch_status(batch uuid) RETURNS TABLE (
  key text, state text, queued bigint, completed bigint, rejected bigint, dead bigint,
  cancelled bigint, deleted bigint, opened_at timestamptz, fired_at timestamptz,
  cancelled_at timestamptz, then_id uuid
) LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT b.key,
         CASE WHEN b.fired_at IS NOT NULL THEN 'fired'
              WHEN b.cancelled_at IS NOT NULL THEN 'cancelled'
              WHEN b.on_dead = 'hold' AND m.queued = 0 AND m.dead > 0 THEN 'held'
              ELSE 'open' END,
         m.queued, m.completed, m.rejected, m.dead, m.cancelled,
         greatest(0, (SELECT coalesce(sum(value::bigint), 0)::bigint
                      FROM jsonb_each_text(b.counts)) - m.members),
         b.opened_at, b.fired_at, b.cancelled_at,
         CASE WHEN b.then_kind IS NOT NULL THEN b.then_id END
  FROM {schema}.batches AS b CROSS JOIN LATERAL (
    SELECT count(*) AS members,
           count(*) FILTER (WHERE j.state = 'queued') AS queued,
           count(*) FILTER (WHERE j.state = 'completed') AS completed,
           count(*) FILTER (WHERE j.state = 'rejected') AS rejected,
           count(*) FILTER (WHERE j.state = 'dead') AS dead,
           count(*) FILTER (WHERE j.state = 'cancelled') AS cancelled
    FROM {schema}.jobs AS j WHERE j.batch_id = b.id
  ) AS m
  WHERE b.id = batch
$$;

-- Cancel what has not taken effect of a batch, at most `jobs_max` jobs in this transaction, and
-- never let it fire. Returns those that were cancelled. Jobs that are ending at this moment are
-- passed over: call it again, each time in a transaction of its own, until no member is queued.
CREATE FUNCTION cancel_batch(
  batch uuid, reason text DEFAULT 'cancelled by its caller', jobs_max int DEFAULT 500
) RETURNS TABLE (id uuid, redis_id text)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  UPDATE {schema}.batches SET cancelled_at = clock_timestamp()
    WHERE id = batch AND fired_at IS NULL AND cancelled_at IS NULL;
  RETURN QUERY
    WITH waiting AS MATERIALIZED (
      SELECT j.id, j.redis_id FROM {schema}.jobs AS j
      WHERE j.batch_id = batch AND j.state = 'queued'
      ORDER BY j.id LIMIT jobs_max FOR UPDATE SKIP LOCKED
    )
    SELECT waiting.id, waiting.redis_id FROM waiting
    WHERE {schema}.cancel_job(waiting.id, reason);
END $$;
