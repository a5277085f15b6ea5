"""Serves the desk by itself, with uvicorn."""

from typing import TYPE_CHECKING, Any

import uvicorn

from worker.desk.app import BehindPrefix, create_desk
from worker.desk.web import desk_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.desk.settings import DeskSettings
    from worker.settings import Settings


class Announced(uvicorn.Server):
    """A server that says where it is once it is there."""

    def __init__(self, config: uvicorn.Config, announce: "Callable[[int], None]") -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: "list[Any] | None" = None) -> None:
        """Begin to listen, and say so."""
        await super().startup(sockets)
        for server in getattr(self, "servers", []):
            for one in server.sockets:
                self._announce(one.getsockname()[1])
                return


def serve(
    settings: "Settings",
    desk_settings: "DeskSettings",
    *,
    operate: bool,
    say: "Callable[[str], None]",
) -> None:
    """Serve the desk until a signal ends it."""
    server = server_of(settings, desk_settings, operate=operate, say=say)
    server.run()


def server_of(
    settings: "Settings",
    desk_settings: "DeskSettings",
    *,
    operate: bool,
    say: "Callable[[str], None]",
) -> Announced:
    """Return the desk's server; `say` is told the address, or the link that opens the desk."""
    app = create_desk(settings, desk_settings, link_role="operator" if operate else "viewer")

    def announce(port: int) -> None:
        host = f"[{desk_settings.host}]" if ":" in desk_settings.host else desk_settings.host
        where = f"http://{host}:{port}{desk_settings.root_path}"
        if desk_settings.decides_who:
            say(f"the desk: {where}/")
        else:
            token = desk_of(app).access.new_link_token()
            say(f"the desk, by a link that works once: {where}/enter?token={token}")

    config = uvicorn.Config(
        BehindPrefix(app, desk_settings.root_path),
        host=desk_settings.host,
        port=desk_settings.port,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=3,
    )
    return Announced(config, announce)
