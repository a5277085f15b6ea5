-- The tables of the handlers, as deploy/roles.sql gives those of the machine: yours go here.
--
--   psql "$OWNERS_URL" -v schema=public -v worker=teller_worker -f deploy/roles-bank.sql

GRANT SELECT, INSERT, UPDATE ON :"schema".accounts TO :"worker";
GRANT SELECT, INSERT ON :"schema".users, :"schema".transfers, :"schema".entries TO :"worker";
