"""The desk: pages on which an operator sees what happens, why, and what it is safe to do.

`acts/` is what an operator may change, and the command line uses the same functions; it needs no
web library. The rest is one ASGI app (`app.py: create_desk`), an extra of the package.
"""
