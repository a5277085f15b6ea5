"""A real PostgreSQL and a real Valkey for demo, dev and tests, started from wheels."""
