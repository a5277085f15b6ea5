"""Telling Redis what the record has decided: useful, and never needed."""

import logging
from collections.abc import Awaitable

from redis.exceptions import RedisError

logger = logging.getLogger(__name__)


async def told(message: Awaitable[None]) -> bool:
    """Send something to Redis; with Redis away the relay does it later."""
    try:
        await message
    except (RedisError, OSError) as error:
        logger.warning("could not tell redis (%s): the relay will", type(error).__name__)
        return False
    return True
