"""What PostgreSQL, Redis and their drivers raise, as one sentence that says what to do.

Apart from `_boundary`, so that a command which needs no server imports no driver.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from redis.exceptions import AuthenticationError, NoPermissionError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from db.connector import UnsuitableDatabaseError
from db.errors import Trouble, diagnose, sqlstate_of
from db.migrate import MigrationBusyError, SchemaOutdatedError
from worker.errors import StartupError, TellerError

_MIGRATE: Final = (
    "the database lacks something that this code needs: run `python -m worker migrate`, "
    "and check the search_path"
)
_GRANT: Final = "the database's user may not do that: grant it the right, or use another user"
_REFUSED: Final = "the database refuses the user: check name and password in DATABASE_URL"
_UNREACHABLE: Final = "cannot reach the database: check DATABASE_URL, and that PostgreSQL is up"
_NOT_POSTGRESQL: Final = (
    "what answers is not the PostgreSQL that was expected: check host and port in DATABASE_URL"
)
_OUT_OF_RANGE: Final = "the database cannot take a value that was given"

_BY_SQLSTATE: Final = {
    "25006": "the database is read-only: give DATABASE_URL a primary that takes writes",
    "3D000": "there is no such database: create it, or check DATABASE_URL",
    "42501": _GRANT,
    "55P03": "another transaction holds a lock on that, a running job's for example: try again",
    "57014": "the database stopped a statement that took too long: try again when it is less busy",
    "53300": "the database has no connection left: try again, or raise its max_connections",
    "57P03": "the database is starting or stopping: try again in a moment",
    "53100": "the database's disk is full: make room, then try again",
}
_BY_CLASS: Final = {"28": _REFUSED, "3F": _MIGRATE, "42": _MIGRATE, "22": _OUT_OF_RANGE}


@contextmanager
def explaining_servers() -> Iterator[None]:
    """Turn what the servers and their drivers raise into one sentence for a person.

    Raises:
        StartupError: a server is away, refuses, or does not answer as it should.
    """
    try:
        yield
    except Exception as error:
        sentence = sentence_about(error)
        if sentence is None:
            raise
        raise StartupError(sentence) from error


def sentence_about(error: BaseException) -> str | None:
    """Return what a server's error means and what to do; None for an error of another source."""
    sentence: str | None = None
    match error:
        case TellerError():
            pass  # it is a sentence already, whatever it was raised from
        case BaseExceptionGroup(exceptions=[only]):
            sentence = sentence_about(only)
        case SchemaOutdatedError() | UnsuitableDatabaseError() | MigrationBusyError():
            sentence = str(error)
        case RedisError():
            sentence = _about_redis(error)
        case ArgumentError():
            sentence = _with("DATABASE_URL is not the URL of a PostgreSQL", error)
        case DBAPIError():
            sentence = _about_postgresql(error)
        case Exception() if _raised_in("alembic.util.", error):
            sentence = _with("the database's schema is not one that this code knows", error)
        case Exception() if _raised_in("asyncpg.", error):
            sentence = _about_postgresql(error)
        case OSError() | SQLAlchemyError() if diagnose(error).trouble is Trouble.CONNECTION:
            sentence = _UNREACHABLE
    return sentence


def _about_postgresql(error: BaseException) -> str:
    sqlstate = sqlstate_of(error) or ""
    known = _BY_SQLSTATE.get(sqlstate) or _BY_CLASS.get(sqlstate[:2])
    if known is None and diagnose(error).trouble is Trouble.CONNECTION:
        known = _UNREACHABLE
    if known is None:
        known = f"the database answered with SQLSTATE {sqlstate}" if sqlstate else _NOT_POSTGRESQL
    return _with(known, getattr(error, "orig", None) or error)


def _about_redis(error: RedisError) -> str:
    match error:
        case AuthenticationError() | NoPermissionError():
            return _with("Redis refuses the user: check REDIS_URL and its rights", error)
        case RedisConnectionError() | RedisTimeoutError():
            return _with("cannot reach Redis: check REDIS_URL, and that Redis is up", error)
    return _with("Redis does not answer as expected: check REDIS_URL", error)


def _with(sentence: str, error: BaseException) -> str:
    """Return a sentence with the first line of the error's own words, if it has any."""
    seen = error
    while isinstance(seen.__cause__, Exception) and not isinstance(seen, OSError):
        seen = seen.__cause__  # SQLAlchemy's wrapping repeats the class's name; the cause does not
    lines = str(seen).strip().splitlines()
    return f"{sentence} ({lines[0]})" if lines else sentence


def _raised_in(package: str, error: BaseException) -> bool:
    """Return whether an exception passed through a package's own code."""
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_globals.get("__name__", "").startswith(package):
            return True
        traceback = traceback.tb_next
    return False
