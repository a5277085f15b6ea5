"""The loop's Lua scripts: each is one atomic step on arq's keys."""

from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha1
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from arq import constants
from redis.exceptions import NoScriptError

if TYPE_CHECKING:
    from arq.connections import ArqRedis

UNKNOWN_KEY_PREFIX: Final = "arq:unknown:"
"""Since when a job waits for a worker that knows its function."""
CLAIMS_KEY_PREFIX: Final = "arq:claims:"
"""How many claims of a job are open: one while it runs, more if processes died under it."""
QUARANTINE_SUFFIX: Final = ":quarantine"
"""A hash beside the queue of what was in it and cannot be a job; see `quarantine.py`."""

_FOLDER: Final = Path(__file__).with_name("lua")
_NAMES: Final = {
    "job": constants.job_key_prefix,
    "in_progress": constants.in_progress_key_prefix,
    "retry": constants.retry_key_prefix,
    "result": constants.result_key_prefix,
    "aborts": constants.abort_jobs_ss,
    "unknown": UNKNOWN_KEY_PREFIX,
    "claims": CLAIMS_KEY_PREFIX,
    "quarantine": QUARANTINE_SUFFIX,
}


RunScript = Callable[["Script", Sequence[str], Sequence[Any]], Awaitable[Any]]
"""Runs a script on the worker's Redis: script, keys, arguments."""
AttemptScript = Callable[["Script", Sequence[str], Sequence[Any], int], Awaitable[Any]]
"""The same, with the bytes of the arguments."""


class Script:
    """A Lua script, called by its digest and sent again whenever Redis does not have it."""

    def __init__(self, name: str) -> None:
        self._text = _prelude() + (_FOLDER / f"{name}.lua").read_text()
        self._digest = sha1(self._text.encode()).hexdigest()  # noqa: S324 - Redis' choice

    async def __call__(
        self, redis: "ArqRedis", keys: "Sequence[str]", args: "Sequence[Any]"
    ) -> Any:  # noqa: ANN401 - a script answers what it likes
        """Run the script; a restarted or flushed Redis costs one more round trip, once."""
        try:
            return await _execute(redis, "EVALSHA", self._digest, len(keys), *keys, *args)
        except NoScriptError:
            return await _execute(redis, "EVAL", self._text, len(keys), *keys, *args)


async def _execute(redis: "ArqRedis", *command: Any) -> Any:  # noqa: ANN401 - as above
    """Send a command once; redis-py's own retries would run twice what ran unanswered."""
    if redis.single_connection_client:
        return await redis.execute_command(*command)  # type: ignore[no-untyped-call]
    pool = redis.connection_pool
    connection = await pool.get_connection()
    try:
        await connection.send_command(*command)
        return await connection.read_response()
    finally:
        await pool.release(connection)


def _prelude() -> str:
    text = (_FOLDER / "prelude.lua").read_text()
    for name, value in _NAMES.items():
        text = text.replace(f"'{{{name}}}'", f"'{value}'")
    return text


CLAIM: Final = Script("claim")
FINISH: Final = Script("finish")
RENEW: Final = Script("renew")
PUT_BACK: Final = Script("put_back")
DISOWN: Final = Script("disown")
OPEN: Final = Script("open")
QUARANTINE: Final = Script("quarantine")
