#!/bin/sh
# What the official entrypoint does with POSTGRES_USER, _DB, _PASSWORD and _INITDB_ARGS.
set -eu
: "${POSTGRES_USER:=postgres}" "${POSTGRES_INITDB_ARGS:=}"
: "${POSTGRES_DB:=$POSTGRES_USER}"
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  password=$(mktemp)
  printf '%s' "$POSTGRES_PASSWORD" >"$password"
  # shellcheck disable=SC2086  # several arguments
  initdb --username="$POSTGRES_USER" --pwfile="$password" \
    --auth-host=scram-sha-256 --auth-local=trust $POSTGRES_INITDB_ARGS
  rm "$password"
  echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
  if [ "$POSTGRES_DB" != postgres ]; then
    pg_ctl -o "-c listen_addresses='' -k /tmp" -w start
    createdb --host=/tmp --username="$POSTGRES_USER" "$POSTGRES_DB"
    pg_ctl -w stop
  fi
fi
exec postgres -c listen_addresses='*' -k /tmp "$@"
