-- Door 2, and under the covers doors 1 and 4: one set of rules for accepting a job.

-- What is wrong with `value` under a JSON Schema, as one sentence, or NULL. It knows the subset
-- that pydantic writes for a job's payload. It never repeats the value itself: payloads are private.
CREATE FUNCTION schema_fault(schema jsonb, value jsonb, path text, root jsonb) RETURNS text
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  kind text := jsonb_typeof(value);
  field text;
  option jsonb;
  fault text;
  plain text := value #>> '{}';
  position int := 0;
BEGIN
  IF schema ? '$ref' THEN
    RETURN schema_fault(root #> string_to_array(substr(schema->>'$ref', 3), '/'), value, path, root);
  END IF;

  IF schema ? 'anyOf' THEN
    FOR option IN SELECT * FROM jsonb_array_elements(schema->'anyOf') LOOP
      fault := schema_fault(option, value, path, root);
      EXIT WHEN fault IS NULL;
    END LOOP;
    RETURN fault;
  END IF;

  IF schema ? 'const' AND value <> schema->'const' THEN
    RETURN format('%s is not the one value allowed', path);
  END IF;
  IF schema ? 'enum' AND NOT schema->'enum' @> value THEN
    RETURN format('%s is not one of %s', path, schema->'enum');
  END IF;
  IF schema ? 'type' AND NOT (
    schema->>'type' = kind
    OR (schema->>'type' = 'integer' AND kind = 'number' AND value::numeric % 1 = 0)
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
          fault := schema_fault(schema->'properties'->field, value->field, path || '.' || field, root);
          IF fault IS NOT NULL THEN RETURN fault; END IF;
        ELSIF schema->'additionalProperties' = 'false' THEN
          RETURN format('%s has a field that the kind does not know', path);
        END IF;
      END LOOP;
    WHEN 'array' THEN
      IF jsonb_array_length(value) < coalesce((schema->>'minItems')::int, 0)
        OR jsonb_array_length(value) > coalesce((schema->>'maxItems')::int, 2147483647) THEN
        RETURN format('%s has %s items', path, jsonb_array_length(value));
      END IF;
      IF schema ? 'items' THEN
        FOR option IN SELECT * FROM jsonb_array_elements(value) LOOP
          fault := schema_fault(schema->'items', option, format('%s[%s]', path, position), root);
          IF fault IS NOT NULL THEN RETURN fault; END IF;
          position := position + 1;
        END LOOP;
      END IF;
    WHEN 'string' THEN
      IF length(plain) < coalesce((schema->>'minLength')::int, 0)
        OR length(plain) > coalesce((schema->>'maxLength')::int, 2147483647) THEN
        RETURN format('%s is %s characters long', path, length(plain));
      END IF;
      IF schema ? 'pattern' AND plain !~ (schema->>'pattern') THEN
        RETURN format('%s does not match %s', path, schema->>'pattern');
      END IF;
      IF schema->>'format' = 'uuid' AND NOT pg_input_is_valid(plain, 'uuid')
        OR schema->>'format' = 'date' AND NOT pg_input_is_valid(plain, 'date')
        OR schema->>'format' = 'date-time' AND NOT pg_input_is_valid(plain, 'timestamptz') THEN
        RETURN format('%s is not a %s', path, schema->>'format');
      END IF;
    ELSE
      NULL;
  END CASE;
  RETURN NULL;
END $$;

CREATE FUNCTION payload_hash(payload jsonb) RETURNS bytea
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
  -- jsonb's own text is canonical: keys ordered, duplicates gone, spacing fixed.
  SELECT sha256(convert_to(payload::text, 'UTF8'))
$$;

-- Accept one job. The same key (or id) with the same payload answers with the job that is there;
-- with another payload it is an error. SQLSTATE TL001 unknown kind, TL002 invalid payload,
-- TL003 key conflict, TL004 invalid key.
CREATE FUNCTION accept_job(
  p_kind text, p_payload jsonb, p_key text, p_run_at timestamptz, p_id uuid, p_traceparent text,
  OUT id uuid, OUT state text, OUT fresh boolean
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
  p_schema jsonb;
  fault text;
  stored jobs;
BEGIN
  SELECT payload_schema INTO p_schema FROM job_kinds WHERE kind = p_kind;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'unknown job kind %', quote_nullable(left(p_kind, 100)) USING
      ERRCODE = 'TL001',
      HINT = format('known kinds: %s', (SELECT string_agg(kind, ', ' ORDER BY kind) FROM job_kinds));
  END IF;
  IF p_key = '' OR length(p_key) > 200 THEN
    RAISE EXCEPTION 'a key has 1 to 200 characters, this one %', length(p_key)
      USING ERRCODE = 'TL004';
  END IF;
  fault := CASE
    WHEN p_payload IS NULL THEN 'the payload is NULL'
    WHEN octet_length(p_payload::text) > 65536 THEN 'the payload is larger than 65536 bytes'
    ELSE schema_fault(p_schema, p_payload, 'payload', p_schema)
  END;
  IF fault IS NOT NULL THEN
    RAISE EXCEPTION 'invalid payload for %: %', p_kind, fault USING ERRCODE = 'TL002';
  END IF;

  INSERT INTO jobs AS j (id, kind, key, payload, payload_hash, run_at, traceparent)
    VALUES (coalesce(p_id, uuidv7()), p_kind, p_key, p_payload, payload_hash(p_payload),
            coalesce(p_run_at, clock_timestamp()), p_traceparent)
    ON CONFLICT DO NOTHING
    RETURNING j.id, j.state INTO accept_job.id, accept_job.state;
  fresh := FOUND;
  IF fresh THEN
    RETURN;
  END IF;

  -- A new statement, so a new snapshot: it sees the row the insert waited for.
  SELECT * INTO stored FROM jobs WHERE id = p_id OR (kind = p_kind AND key = p_key)
    ORDER BY (id = p_id) DESC NULLS LAST LIMIT 1;
  IF stored.kind <> p_kind OR stored.payload_hash <> payload_hash(p_payload) THEN
    RAISE EXCEPTION 'job % already has this key with another payload', stored.id USING
      ERRCODE = 'TL003', HINT = 'use a new key for a new payload';
  END IF;
  id := stored.id;
  state := stored.state;
END $$;

-- The public door for every language: psql> SELECT enqueue_job('transfer_funds', '{…}', 'order-42');
CREATE FUNCTION enqueue_job(
  kind text, payload jsonb, key text DEFAULT NULL, run_at timestamptz DEFAULT now()
) RETURNS uuid LANGUAGE sql AS $$
  SELECT id FROM accept_job($1, $2, $3, $4, NULL, NULL)
$$;
