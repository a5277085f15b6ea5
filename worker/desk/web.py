"""What every page works with, and how a page is let through, answered and written."""

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, RedirectResponse, Response

from db.desk import begin_reading
from worker.desk.forms import read_form
from worker.desk.view import environment
from worker.monitoring.servers import postgres_trouble

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
    from starlette.requests import Request

    from worker.desk.access import Access, Operator
    from worker.desk.settings import DeskSettings
    from worker.desk.snapshot import Snapshots
    from worker.settings import Settings

THEMES: Final = ("light", "dark")
THEME_COOKIE: Final = "teller_desk_theme"
THEME_KEPT_S: Final = 365 * 86_400
QUERY_CANCELED: Final = "57014"


@dataclass
class Desk:
    """What every page works with."""

    settings: "Settings"
    desk_settings: "DeskSettings"
    engine: "AsyncEngine"
    sessions: "async_sessionmaker[AsyncSession]"
    redis: "Redis"
    access: "Access"
    snapshots: "Snapshots"

    @asynccontextmanager
    async def reading(self) -> "AsyncIterator[AsyncSession]":
        """Open a session that reads, and whose statements end in time."""
        async with self.sessions() as session:
            await begin_reading(session)
            yield session

    async def aclose(self) -> None:
        """Close the connections."""
        await self.engine.dispose()
        await self.redis.aclose()


def desk_of(app: Any) -> Desk:  # noqa: ANN401 - Starlette's own
    """Return what the pages of an app work with."""
    found: Desk = app.state.desk
    return found


def page(answer: Any, *, act: bool = False) -> Any:  # noqa: ANN401 - Starlette's endpoints
    """Return a page for whoever is let in; an act needs an operator and a form of this session.

    What the servers raise becomes a page that says so: one that is slow or away is no error of the
    desk.
    """

    async def guarded(request: "Request") -> Response:
        desk = desk_of(request.app)
        operator = desk.access.who(request)
        if operator is None:
            return _nobody(request)
        request.state.operator = operator
        if request.method == "POST":
            await _require_own_form(request, operator)
        if act and not operator.may_act:
            raise HTTPException(403, "A viewer may look and not act: ask an operator.")
        try:
            answered: Response = await answer(request)
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            return await _server_trouble(request, error)
        return answered

    return guarded


async def _require_own_form(request: "Request", operator: "Operator") -> None:
    """Refuse a form that another site's page has sent."""
    if request.headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
        raise HTTPException(403, "This form came from another site.")
    form = await read_form(request)
    if not desk_of(request.app).access.takes_form(operator, form.get("token")):
        raise HTTPException(403, "This form is of another session: load the page again.")


def _nobody(request: "Request") -> Response:
    desk = desk_of(request.app)
    if desk.desk_settings.user_header:
        raise HTTPException(403, "The proxy does not say who you are.")
    if request.headers.get("hx-request"):
        return Response(status_code=401, headers={"hx-redirect": f"{root_of(request)}/sign-in"})
    return RedirectResponse(f"{root_of(request)}/sign-in", 303)


def root_of(request: "Request") -> str:
    """Return the prefix of every link: where the desk is mounted."""
    root: str = request.scope.get("root_path", "")
    return root.rstrip("/")


def render(request: "Request", template: str, status: int = 200, **values: Any) -> Response:  # noqa: ANN401 - what a template shows
    """Return a page made from a template and what every page shows."""
    desk = desk_of(request.app)
    operator = getattr(request.state, "operator", None)
    theme = request.cookies.get(THEME_COOKIE)
    shared = {
        "root": root_of(request),
        "path": request.scope["path"].removeprefix(root_of(request)) or "/",
        "operator": operator,
        "token": desk.access.form_token(operator) if operator else "",
        "instance": desk.desk_settings.name,
        "hue": sum(desk.desk_settings.name.encode()) * 47 % 360,
        "theme": theme if theme in THEMES else "",
        "has_session": not desk.desk_settings.user_header,
    }
    html = environment().get_template(template).render(shared | values)
    return HTMLResponse(html, status_code=status)


async def _server_trouble(request: "Request", error: BaseException) -> Response:
    slow = isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", "") == QUERY_CANCELED
    trouble = "slow" if slow else postgres_trouble(error)
    return render(request, "trouble.html", 503, trouble=trouble)
