"""uvloop for programs that choose no event loop."""

import asyncio
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

try:
    import uvloop
except ImportError:  # pragma: no cover - Windows
    _new_event_loop: "Callable[[], asyncio.AbstractEventLoop]" = asyncio.new_event_loop
else:
    _new_event_loop = uvloop.new_event_loop


def prefer_uvloop() -> None:
    """Make uvloop the current event loop, unless the program has chosen one.

    arq's constructor takes the current loop, or makes one; where it would make one, it finds
    uvloop. A loop that exists may already have connections bound to it, so it stays.
    """
    if not _loop_is_chosen():
        asyncio.set_event_loop(_new_event_loop())


def _loop_is_chosen() -> bool:
    if asyncio._get_running_loop() is not None:  # noqa: SLF001 - get_running_loop() without the raise
        return True
    if sys.version_info >= (3, 14):
        try:
            asyncio.get_event_loop()
        except RuntimeError:
            return False
        return True
    policy = asyncio.get_event_loop_policy()
    if type(policy) is not asyncio.DefaultEventLoopPolicy:
        return True
    # The public getter would make a loop where there is none.
    local = getattr(policy, "_local", None)
    return getattr(local, "_loop", None) is not None or not hasattr(local, "_loop")
