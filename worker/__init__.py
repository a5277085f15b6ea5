"""Runs jobs: the only package that knows arq's Worker.

Read `app.py` first (what is composed of what), then `execute.py` (the life of one job).
"""
