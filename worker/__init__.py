"""The machine: runs jobs. Read `app.py` first (what is composed of what), then `execution`."""
