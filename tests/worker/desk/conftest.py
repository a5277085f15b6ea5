"""A desk in this process, on a database and a Redis of its own, and whoever sits at it."""

import re
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from db.engine import create_engine, create_sessions
from worker.desk.app import BehindPrefix, create_desk
from worker.desk.settings import DeskSettings
from worker.desk.web import Desk, desk_of
from worker.settings import Settings

ORIGIN = "http://desk.test"


@dataclass
class Seat:
    """A browser without a script, in front of the desk."""

    app: Any
    http: httpx.AsyncClient

    @property
    def desk(self) -> Desk:
        return desk_of(self.app)

    async def enter(self, role="operator"):
        """Come in by a link."""
        self.desk.access.link_role = role
        token = self.desk.access.new_link_token()
        answer = await self.http.get("/enter", params={"token": token})
        assert answer.status_code == 303
        return self

    async def get(self, path, **options):
        return await self.http.get(path, **options)

    @staticmethod
    def token_in(page):
        return re.findall(r'name="token" value="(\w+)"', page)[0]

    async def post(self, path, token=None, **fields):
        """Send a form, with this session's token unless another is given."""
        if token is None:
            token = self.token_in((await self.get("/jobs")).text)
        return await self.http.post(path, data={"token": token, **fields})


def settings_of(monkeypatch, database_url, redis_url):
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("REDIS_URL", redis_url)
    return Settings()


@pytest.fixture
async def open_seat(new_database_url, redis_url, monkeypatch):
    """Return a function that opens a desk on this test's database, by the desk's settings."""
    opened = []

    def open_(database_url=new_database_url, redis_url=redis_url, **options):
        desk_settings = DeskSettings(**options)
        app = create_desk(settings_of(monkeypatch, database_url, redis_url), desk_settings)
        served = BehindPrefix(app, desk_settings.root_path)
        http = httpx.AsyncClient(transport=httpx.ASGITransport(app=served), base_url=ORIGIN)
        opened.append(Seat(app, http))
        return opened[-1]

    yield open_
    for seat in opened:
        await seat.http.aclose()
        await seat.desk.aclose()


@pytest.fixture
def seat(open_seat):
    return open_seat()


@pytest.fixture
async def rows(new_database_url):
    """Sessions of the desk's database."""
    engine = create_engine(new_database_url, pool_size=4, application_name="teller-tests")
    yield create_sessions(engine)
    await engine.dispose()
