# ruff: noqa: E501 - rows in columns
"""An incident, as rows: a bad deploy left 500 dead jobs in three groups, and one worker is stuck.

The rest of the hour went well. Every time is before the database's own, so that each run of a test
sees the same pages.
"""

from sqlalchemy import text

HEALTHY = text("""
    INSERT INTO jobs (kind, key, payload, state, result, attempts, enqueued_at, run_at,
                      dispatched_at, finished_at)
    SELECT (ARRAY['send_letter', 'send_letter', 'send_letter', 'print_catalog', 'send_card'])[n % 5 + 1],
           'order-' || n, jsonb_build_object('address', n || ' High Street', 'pages', 2),
           CASE WHEN n % 17 = 0 THEN 'rejected' WHEN n % 61 = 0 THEN 'cancelled' ELSE 'completed' END,
           CASE WHEN n % 17 = 0 THEN jsonb_build_object('code', 'no_such_address') ELSE '{}' END,
           CASE WHEN n % 23 = 0 THEN 1 ELSE 0 END, at, at, at + interval '4 ms',
           at + interval '30 ms' * (1 + n % 7)
    FROM generate_series(1, :jobs) AS n,
         LATERAL (SELECT now() - interval '59 minutes' * power(n::float8 / :jobs, 0.8)) AS t (at)
""")

# Three groups: the messages differ in their numbers and names, and are the same fault.
DEAD = text("""
    INSERT INTO jobs (kind, key, payload, state, errors, attempts, enqueued_at, run_at,
                      dispatched_at, finished_at)
    SELECT kind, 'late-' || n, jsonb_build_object('address', n || ' High Street', 'pages', 2), 'dead',
           (SELECT jsonb_agg(jsonb_build_object(
                     'try', t, 'at', at + interval '20 s' * t, 'error', error,
                     'message', format(message, n), 'sqlstate', sqlstate) ORDER BY t)
            FROM generate_series(1, 5) AS t),
           5, at, at + interval '80 s', at + interval '80 s', at + interval '100 s'
    FROM generate_series(1, 500) AS n,
         LATERAL (SELECT now() - interval '14 minutes' + interval '1.3 s' * n) AS t (at),
         LATERAL (
           SELECT * FROM (VALUES
             (1, 'send_letter', 'KeyError', 'letter %s has no ''street''', NULL),
             (2, 'print_catalog', 'ProgrammingError', 'column "weight_g" of parcel %s is missing', '42703'),
             (3, 'send_card', 'ConnectError', 'scales 10.0.0.%s:9100 refuse the connection', NULL)
           ) AS g (which, kind, error, message, sqlstate)
           WHERE which = CASE WHEN n % 10 < 6 THEN 1 WHEN n % 10 < 9 THEN 2 ELSE 3 END
         ) AS cause
""")

WAITING = text("""
    INSERT INTO jobs (kind, key, payload, queue, attempts, conflicts, enqueued_at, run_at,
                      dispatched_at, blocked_by, blocked_since, errors)
    SELECT kind, 'next-' || n, jsonb_build_object('address', n || ' High Street', 'pages', 2),
           CASE WHEN n % 8 = 0 THEN 'slow' ELSE 'default' END, 0, CASE WHEN n % 9 = 0 THEN 2 ELSE 0 END,
           now() - interval '1 s' * (n % 150), now() - interval '1 s' * (n % 150) + later,
           now() - interval '1 s' * (n % 100), cause, CASE WHEN cause IS NOT NULL THEN now() END, '[]'
    FROM generate_series(1, 240) AS n,
         LATERAL (SELECT CASE WHEN n % 6 = 0 THEN interval '2 h' ELSE interval '0' END,
                         CASE WHEN n % 40 = 0 THEN 'newer_worker' END,
                         CASE WHEN n % 4 = 0 THEN 'send_card' ELSE 'send_letter' END
                 ) AS t (later, cause, kind)
""")

WORKERS = text("""
    INSERT INTO workers (id, host, pid, version, kinds, state, mode, jobs_running, queue_key, queues,
                         started_at, seen_at)
    SELECT new_id(), host, pid, version, ARRAY['send_letter', 'print_catalog', 'send_card'], state,
           'normal', running, 'arq:queue', ARRAY['default', 'slow'], now() - interval '15 minutes',
           now() - silent
    FROM (VALUES ('post-1', 11, '2.4.0', 'running', 14, interval '1 s'),
                 ('post-2', 12, '2.4.0', 'running', 9, interval '2 s'),
                 ('post-3', 13, '2.4.0', 'running', 16, interval '7 minutes'),
                 ('post-4', 14, '2.3.9', 'draining', 2, interval '1 s'))
      AS w (host, pid, version, state, running, silent)
""")

KINDS = text("""
    INSERT INTO job_kinds (kind, payload_schema)
    SELECT kind, '{}' FROM unnest(ARRAY['send_letter', 'print_catalog', 'send_card']) AS k (kind)
    ON CONFLICT DO NOTHING
""")


async def seed_incident(sessions, healthy=4_000):
    """Write the incident into an empty database."""
    async with sessions() as session, session.begin():
        await session.execute(KINDS)
        await session.execute(HEALTHY, {"jobs": healthy})
        for statement in (DEAD, WAITING, WORKERS):
            await session.execute(statement)
