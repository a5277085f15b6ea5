-- What the worker and its callers may do, and no more. The role that migrates owns the tables.
--
--   psql "$OWNERS_URL" -v schema=public -v worker=teller_worker -v caller=teller_caller \
--     -f deploy/roles.sql
--
-- After each `python -m worker migrate`; run again, it changes nothing. Make the two roles first:
-- CREATE ROLE teller_worker LOGIN. Functions run with the rights of their caller, so these are all.

GRANT USAGE ON SCHEMA :"schema" TO :"worker", :"caller";

-- Nobody's role may do these; an older PostgreSQL lets everybody make tables in public.
REVOKE CREATE ON SCHEMA :"schema" FROM PUBLIC;

-- A worker: jobs from their acceptance to their deletion, what it serves, and its own row.
GRANT SELECT ON :"schema".teller_version, :"schema".job_kinds TO :"worker";
GRANT SELECT, INSERT, UPDATE, DELETE ON
  :"schema".jobs, :"schema".workers, :"schema".batches, :"schema".pauses
  TO :"worker";
GRANT SELECT, INSERT, UPDATE ON :"schema".schedules TO :"worker";
GRANT SELECT, INSERT ON :"schema".occurrences TO :"worker";
GRANT SELECT, UPDATE ON :"schema".webhook_endpoints TO :"worker";

-- A caller, in any language: enqueue_job and cancel_job, and batches of jobs.
GRANT SELECT ON :"schema".job_kinds, :"schema".pauses TO :"caller";
GRANT SELECT, INSERT, UPDATE ON :"schema".jobs, :"schema".batches TO :"caller";
GRANT SELECT (name) ON :"schema".webhook_endpoints TO :"caller";
