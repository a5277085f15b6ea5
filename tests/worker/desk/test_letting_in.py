"""Who is let in, and what may be seen of the desk from outside."""

from dataclasses import replace

import httpx
import pytest
from fastapi import FastAPI

from tests.worker.desk.conftest import ORIGIN, settings_of
from worker.desk.access import COOKIE, hash_password
from worker.desk.app import create_desk
from worker.desk.settings import DeskSettings
from worker.desk.web import desk_of
from worker.errors import StartupError

PAGES = ["/", "/jobs", "/jobs/00000000-0000-0000-0000-000000000000", "/live", "/jobs/count"]


@pytest.fixture
def users(tmp_path):
    path = tmp_path / "users"
    path.write_text(f"# who\nada operator {hash_password('engine')}\nbob viewer scrypt$00$00\n")
    return str(path)


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_is_closed_to_whoever_is_not_let_in(seat, path):
    answer = await seat.get(path)

    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in")


async def test_a_link_lets_one_browser_in_once(seat):
    token = seat.desk.access.new_link_token()

    assert (await seat.get("/enter", params={"token": token})).status_code == 303
    assert (await seat.get("/")).status_code == 200
    seat.http.cookies.clear()
    assert (await seat.get("/enter", params={"token": token})).status_code == 403


async def test_a_wrong_link_lets_nobody_in_and_leaves_the_right_one(seat):
    token = seat.desk.access.new_link_token()

    assert (await seat.get("/enter", params={"token": "x"})).status_code == 403
    assert (await seat.get("/enter", params={"token": token})).status_code == 303


async def test_a_link_is_void_after_an_hour(seat):
    token = seat.desk.access.new_link_token()
    now = seat.desk.access.clock()
    seat.desk.access.clock = lambda: now + 3_601

    assert (await seat.get("/enter", params={"token": token})).status_code == 403


async def test_a_session_ends(seat):
    await seat.enter()
    now = seat.desk.access.clock()
    seat.desk.access.clock = lambda: now + seat.desk.desk_settings.session_s + 1

    assert (await seat.get("/")).status_code == 303
    assert (await seat.get("/live", headers={"hx-request": "true"})).headers["hx-redirect"]


async def test_a_session_that_was_changed_is_none(seat):
    await seat.enter("viewer")
    cookie = seat.http.cookies[COOKIE]
    seat.http.cookies.clear()
    seat.http.cookies.set(COOKIE, "e30=" + cookie[cookie.index(".") :])

    assert (await seat.get("/")).status_code == 303


@pytest.mark.parametrize("cookie", ["", ".", "a.b", "ä", "e30=.", "%00"])
async def test_a_cookie_that_is_none_of_ours_is_no_error(seat, cookie):
    answer = await seat.get("/", headers={"cookie": f"{COOKIE}={cookie}".encode()})

    assert answer.status_code == 303


async def test_a_cookie_is_kept_from_scripts_and_other_sites(seat):
    token = seat.desk.access.new_link_token()
    answer = await seat.get("/enter", params={"token": token})

    assert "HttpOnly" in answer.headers["set-cookie"]
    assert "SameSite=lax" in answer.headers["set-cookie"]


async def test_a_password_lets_its_user_in(open_seat, users):
    seat = open_seat(users=users)
    wrong = await seat.http.post("/sign-in", data={"name": "ada", "password": "motor"})
    right = await seat.http.post("/sign-in", data={"name": "ada", "password": "engine"})

    assert (wrong.status_code, right.status_code) == (403, 303)
    assert "ada" in (await seat.get("/")).text


async def test_guessing_is_stopped(open_seat, users):
    seat = open_seat(users=users)
    for _ in range(10):
        await seat.http.post("/sign-in", data={"name": "ada", "password": "motor"})
    right = await seat.http.post("/sign-in", data={"name": "ada", "password": "engine"})

    assert right.status_code == 403


async def test_whoever_was_taken_from_the_file_is_out(open_seat, users):
    seat = open_seat(users=users)
    await seat.http.post("/sign-in", data={"name": "ada", "password": "engine"})
    ada = seat.desk.access.users["ada"]

    seat.desk.access.users["ada"] = replace(ada, role="viewer")
    assert (await seat.get("/")).status_code == 303


async def test_no_link_works_where_users_are_set(open_seat, users):
    seat = open_seat(users=users)
    token = seat.desk.access.new_link_token()

    assert (await seat.get("/enter", params={"token": token})).status_code == 403


def test_a_line_that_is_no_user_is_told_by_its_number(tmp_path):
    path = tmp_path / "users"
    path.write_text("ada admin scrypt$0$0\n")

    with pytest.raises(StartupError, match="line 1"):
        desk_of_users(str(path))


def desk_of_users(path):
    from worker.desk.access import Access

    return Access(DeskSettings(users=path))


async def test_a_proxy_says_who_is_there(open_seat):
    seat = open_seat(user_header="x-user", operators="ada")
    ada = await seat.get("/", headers={"x-user": "ada"})
    bob = await seat.get("/", headers={"x-user": "bob"})
    nobody = await seat.get("/")

    assert "operator" in ada.text
    assert "viewer" in bob.text
    assert nobody.status_code == 403


async def test_a_form_of_another_site_is_refused(seat):
    await seat.enter()
    stranger = await seat.http.post(
        "/sign-out", data={"token": "x"}, headers={"sec-fetch-site": "cross-site"}
    )
    unsigned = await seat.http.post("/sign-out", data={"token": ""})

    assert (stranger.status_code, unsigned.status_code) == (403, 403)
    assert (await seat.get("/")).status_code == 200


async def test_signing_out_ends_the_session_in_this_browser(seat):
    await seat.enter()

    assert (await seat.post("/sign-out")).status_code == 303
    assert (await seat.get("/")).status_code == 303


@pytest.mark.parametrize("path", ["/sign-in", "/nowhere", "/static/desk.css", "/health"])
async def test_every_answer_forbids_what_is_not_the_desks_own(seat, path):
    headers = (await seat.get(path)).headers
    policy = headers["content-security-policy"]

    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"


async def test_a_theme_is_kept_and_leads_nowhere_else(seat):
    kept = await seat.http.post("/theme", data={"theme": "dark", "back": "//evil.test"})

    assert kept.headers["location"] == "/"
    assert 'data-theme="dark"' in (await seat.get("/sign-in")).text


@pytest.mark.parametrize("passed", ["", "/a/b"], ids=["stripped", "passed on"])
async def test_the_desk_works_under_a_prefix(open_seat, passed):
    seat = open_seat(root_path="/a/b")
    token = seat.desk.access.new_link_token()
    entered = await seat.get(f"{passed}/enter", params={"token": token})
    seat.http.cookies.set(COOKIE, entered.cookies[COOKIE])
    page = await seat.get(f"{passed}/jobs")

    assert entered.headers["location"] == "/a/b/"
    assert "Path=/a/b" in entered.headers["set-cookie"]
    assert 'href="/a/b/static/desk.css' in page.text
    assert (await seat.get(f"{passed}/static/desk.css")).status_code == 200


async def test_the_desk_is_mounted_in_an_application(new_database_url, redis_url, monkeypatch):
    settings = settings_of(monkeypatch, new_database_url, redis_url)
    desk = create_desk(settings, DeskSettings())
    theirs = FastAPI()
    theirs.mount("/ops", desk)
    transport = httpx.ASGITransport(app=theirs)
    async with httpx.AsyncClient(transport=transport, base_url=ORIGIN) as http:
        token = desk_of(desk).access.new_link_token()
        entered = await http.get("/ops/enter", params={"token": token})
        page = await http.get("/ops/jobs")

    await desk_of(desk).aclose()
    assert entered.headers["location"] == "/ops/"
    assert 'action="/ops/jobs"' in page.text
