-- Schedules: a mark for each, up to which it is decided, and the runs that were made.

CREATE TABLE schedules (
  name text CONSTRAINT schedules_pkey PRIMARY KEY,
  spec text NOT NULL,
  decided_until timestamptz NOT NULL,
  missed bigint NOT NULL DEFAULT 0
);

-- Written in the transaction that accepts the job, and gone with it.
CREATE TABLE occurrences (
  schedule text NOT NULL CONSTRAINT occurrences_schedule_fkey REFERENCES schedules (name),
  fire_at timestamptz NOT NULL,
  job_id uuid NOT NULL CONSTRAINT occurrences_job_id_fkey REFERENCES jobs (id) ON DELETE CASCADE,
  made_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  CONSTRAINT occurrences_pkey PRIMARY KEY (schedule, fire_at)
);
CREATE INDEX occurrences_job_id_idx ON occurrences (job_id);

-- What retention looks for. The two kinds that are kept for ever, and are by far the most, cost
-- nothing here; see `db/retention.py`.
CREATE INDEX jobs_purgeable_idx ON jobs (kind, finished_at)
  WHERE state IN ('completed', 'rejected', 'cancelled')
    AND kind NOT IN ('create_user', 'transfer_funds');
