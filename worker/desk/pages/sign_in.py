"""In and out: a link that works once, a name and a password; and the choice of the theme."""

from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from worker.desk.access import COOKIE
from worker.desk.forms import read_form
from worker.desk.web import THEME_COOKIE, THEME_KEPT_S, THEMES, desk_of, render, root_of

if TYPE_CHECKING:
    from starlette.requests import Request


async def enter(request: "Request") -> Response:
    """Let whoever brings the link in, once."""
    desk = desk_of(request.app)
    token = request.query_params.get("token", "")
    session = None if desk.desk_settings.decides_who else desk.access.by_link(token)
    if session is None:
        return render(request, "sign_in.html", 403, by_password=False, failed=True)
    return _with_session(request, session)


async def sign_in(request: "Request") -> Response:
    """Ask for a name and a password, where users have them."""
    desk = desk_of(request.app)
    by_password = bool(desk.desk_settings.users) and not desk.desk_settings.user_header
    if request.method == "GET" or not by_password:
        return render(request, "sign_in.html", by_password=by_password, failed=False)
    if request.headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
        raise HTTPException(403, "This form came from another site.")
    form = await read_form(request)
    session = desk.access.by_password(form.text("name"), form.get("password", ""))
    if session is None:
        return render(request, "sign_in.html", 403, by_password=True, failed=True)
    return _with_session(request, session)


async def sign_out(request: "Request") -> Response:
    """End the session in this browser."""
    response = RedirectResponse(f"{root_of(request)}/sign-in", 303)
    response.delete_cookie(COOKIE, path=root_of(request) or "/")
    return response


async def theme(request: "Request") -> Response:
    """Keep which theme is wanted, and go back to where that was said."""
    form = await read_form(request)
    chosen, back = form.text("theme"), form.text("back")
    inside = back.startswith("/") and not back.startswith(("//", "/\\"))
    response = RedirectResponse(root_of(request) + (back if inside else "/"), 303)
    if chosen in THEMES:
        response.set_cookie(
            *(THEME_COOKIE, chosen),
            max_age=THEME_KEPT_S,
            path=root_of(request) or "/",
            httponly=True,
            samesite="strict",
        )
    return response


def _with_session(request: "Request", session: str) -> Response:
    response = RedirectResponse(f"{root_of(request)}/", 303)
    # Lax: whoever follows a link from a chat or a pager to a job is still signed in.
    response.set_cookie(
        *(COOKIE, session),
        max_age=desk_of(request.app).desk_settings.session_s,
        path=root_of(request) or "/",
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
    )
    return response
