"""The desk as one ASGI app: it runs by itself, or mounted in an application under any prefix.

    app.mount("/ops", create_desk(settings, desk_settings))

All links are relative to where it is mounted (`root_path`), without scheme and host, so that it
makes no difference which proxies are in front of it.
"""

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from db.engine import create_engine, create_sessions
from worker.desk.access import Access
from worker.desk.filters import FilterError
from worker.desk.pages import job, jobs, overview, sign_in
from worker.desk.snapshot import Snapshots
from worker.desk.view import STATIC
from worker.desk.web import Desk, desk_of, page, render

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from worker.desk.access import Role
    from worker.desk.settings import DeskSettings
    from worker.settings import Settings

CONNECTIONS: Final = 4
REDIS_CONNECT_TIMEOUT_S: Final = 1.0
REDIS_ANSWER_TIMEOUT_S: Final = 2.0


def create_desk(
    settings: "Settings", desk_settings: "DeskSettings", *, link_role: "Role" = "viewer"
) -> Starlette:
    """Return the desk; it connects with its first page.

    Args:
        settings: where the servers are: what the workers have.
        desk_settings: who is let in.
        link_role: what whoever comes by the link may do, where no users and no proxy are set.
    """
    engine = create_engine(
        settings.database_url,
        pool_size=CONNECTIONS,
        application_name="teller-desk",
        schema=settings.database_schema,
    )
    redis = Redis.from_url(
        str(settings.redis_url),
        socket_connect_timeout=REDIS_CONNECT_TIMEOUT_S,
        socket_timeout=REDIS_ANSWER_TIMEOUT_S,
    )
    sessions = create_sessions(engine)
    desk = Desk(
        settings=settings,
        desk_settings=desk_settings,
        engine=engine,
        sessions=sessions,
        redis=redis,
        access=Access(desk_settings, link_role),
        snapshots=Snapshots(sessions, redis),
    )
    app = Starlette(
        routes=_routes(),
        middleware=[Middleware(Shielded, desk_settings=desk_settings)],
        exception_handlers={
            HTTPException: _http_error,
            FilterError: _filter_error,
            Exception: _own_error,
        },
        lifespan=_lifespan,
    )
    app.state.desk = desk
    return app


@asynccontextmanager
async def _lifespan(app: Starlette) -> "AsyncIterator[None]":
    yield
    await desk_of(app).aclose()


def _routes() -> list[Route | Mount]:
    return [
        Route("/", page(overview.overview), name="overview"),
        Route("/live", page(overview.live)),
        Route("/jobs", page(jobs.jobs)),
        Route("/jobs/count", page(jobs.count)),
        Route("/jobs/{job_id}", page(job.job)),
        Route("/find", page(jobs.find)),
        Route("/theme", sign_in.theme, methods=["POST"]),
        Route("/enter", sign_in.enter),
        Route("/sign-in", sign_in.sign_in, methods=["GET", "POST"]),
        Route("/sign-out", page(sign_in.sign_out), methods=["POST"]),
        Route("/health", _health),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]


async def _http_error(request: "Request", error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    return render(
        request, "error.html", error.status_code, code=error.status_code, message=error.detail
    )


async def _filter_error(request: "Request", error: Exception) -> Response:
    return render(request, "error.html", 400, code=400, message=str(error))


async def _own_error(request: "Request", error: Exception) -> Response:
    """Say no more than that there was one; what it was is in the log of the server."""
    del error
    message = "A mistake in the desk itself: its log says where."
    return render(request, "error.html", 500, code=500, message=message)


async def _health(request: "Request") -> Response:
    """Answer that this process turns; no server is asked."""
    del request
    return Response("ok", media_type="text/plain")


class Shielded:
    """Adds to every answer what a browser must know to keep others out.

    Nothing that came from a caller can be a script, a style or a link elsewhere that is followed by
    itself: the pages' own files are all that a browser may load or run.
    """

    def __init__(self, app: "ASGIApp", desk_settings: "DeskSettings") -> None:
        self._app = app
        self._root_path = desk_settings.root_path
        self._headers = {
            "content-security-policy": (
                "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
                "connect-src 'self'; font-src 'self'; form-action 'self'; base-uri 'none'; "
                f"frame-ancestors {desk_settings.frame_ancestors}"
            ),
            "x-content-type-options": "nosniff",
            "referrer-policy": "same-origin",
            "cross-origin-opener-policy": "same-origin",
            "cache-control": "no-store",
        }

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_static = "/static/" in scope["path"]

        async def send_shielded(message: "Message") -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers[name] = value
                if is_static and message["status"] == 200:  # noqa: PLR2004 - OK
                    headers["cache-control"] = "public, max-age=31536000, immutable"
            await send(message)

        await self._app(scope, receive, send_shielded)


class BehindPrefix:
    """Shows the desk under a prefix, whether the proxy strips the prefix or passes it on."""

    def __init__(self, app: "ASGIApp", root_path: str) -> None:
        self._app = app
        self._root_path = root_path

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Answer one request."""
        if scope["type"] == "http" and self._root_path:
            path = scope["path"]
            if path != self._root_path and not path.startswith(f"{self._root_path}/"):
                path = self._root_path + path
            scope = {**scope, "root_path": self._root_path, "path": path}
        await self._app(scope, receive, send)
