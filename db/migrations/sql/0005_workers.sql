-- The fleet: a row per worker process, refreshed every few seconds, gone when it has been silent.

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
  started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  seen_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50);
