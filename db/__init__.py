"""Tables, sessions, migrations, and every query as a named function."""
