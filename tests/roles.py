"""The roles of a deployment in a test's own database: an owner, a worker and a caller."""

import re
import uuid
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
from sqlalchemy import make_url

SAMPLES = """
    GRANT USAGE ON SCHEMA samples TO {worker};
    GRANT ALL ON ALL TABLES IN SCHEMA samples TO {worker};
"""
ROOT = Path(__file__).parents[1]


@dataclass
class Roles:
    """URLs of the same database, each of another role."""

    owner: str
    worker: str
    caller: str


@asynccontextmanager
async def separate_roles(url, *files, samples=False):
    """Make the roles and grant what the files in deploy/ say, until the block ends.

    With `samples`, the worker has the samples' tables too, as a team's own file would grant them.
    """
    names = {part: f"teller_{part}_{uuid.uuid4().hex[:8]}" for part in ("worker", "caller")}
    owner = await asyncpg.connect(url)
    try:
        for name in names.values():
            await owner.execute(f"CREATE ROLE {name} LOGIN")
        for file in files * 2:  # again, it changes nothing
            sql = (ROOT / "deploy" / file).read_text(encoding="utf-8")
            await owner.execute(_filled(sql, {"schema": "public", **names}))
        if samples:
            await owner.execute(SAMPLES.format(**names))
        yield Roles(url, *(_as(url, name) for name in names.values()))
    finally:
        for name in names.values():
            await owner.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")
        await owner.close()


def _filled(sql, variables):
    """Fill in the variables as psql does."""
    return re.sub(r':"(\w+)"', lambda found: variables[found[1]], sql)


def _as(url, name):
    return make_url(url).set(username=name, password=None).render_as_string(hide_password=False)


async def refused(url, statement):
    """Return whether a role may not do that."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(f"BEGIN; {statement}; ROLLBACK")
    except asyncpg.InsufficientPrivilegeError:
        return True
    finally:
        await connection.close()
    return False
