"""What commands send to Redis: it saves time, and nothing depends on it."""

import logging
from collections.abc import Awaitable

from redis.exceptions import RedisError

logger = logging.getLogger(__name__)


async def best_effort(sending: Awaitable[None]) -> None:
    """Await a call of Redis; log, and go on, if Redis does not answer.

    PostgreSQL holds the change already: the relay sends jobs that Redis does not have, and no
    worker runs a job that is cancelled.
    """
    try:
        await sending
    except (RedisError, OSError) as error:
        logger.warning(
            "Redis does not answer (%s): workers will learn of this from PostgreSQL",
            type(error).__name__,
        )
