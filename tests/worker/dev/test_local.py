"""The servers that `dev` and `demo` work with: given ones, or ones of this directory."""

import os
import socket

import pytest

from worker.dev.local import local_servers

pytestmark = pytest.mark.needs_servers


@pytest.fixture
def nothing_set(monkeypatch, tmp_path):
    for name in ("DATABASE_URL", "REDIS_URL", "TELLER_REPORTS_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def test_it_says_what_it_starts_and_what_it_uses(nothing_set, monkeypatch, redis_url):
    monkeypatch.setenv("REDIS_URL", redis_url)
    told = []
    with local_servers(say=told.append) as settings:
        assert str(settings.redis_url) == redis_url
    assert told[0].startswith("PostgreSQL started, data in ")
    assert told[1] == "REDIS_URL is set, so no Valkey is started"


def test_the_lines_of_an_earlier_start_that_are_still_exported_mean_the_servers_of_here(
    nothing_set, monkeypatch
):
    with local_servers() as first:
        exported = {name: os.environ[name] for name in ("DATABASE_URL", "REDIS_URL")}
        first_redis = str(first.redis_url)
    for name, url in exported.items():
        monkeypatch.setenv(name, url)

    told = []
    with local_servers(say=told.append) as second:
        assert str(second.redis_url) == first_redis
        host, port = second.redis_url.host, second.redis_url.port
        socket.create_connection((host, port), timeout=10).close()
    assert [line.partition(" started")[1] for line in told] == [" started"] * 2
    assert os.environ["REDIS_URL"] == first_redis
