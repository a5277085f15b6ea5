"""A real Valkey comes up, goes down, and keeps what it was told to keep."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import TimeoutError as RedisTimeoutError

from tests.worker.dev.servers.kit import owner
from worker.dev.servers import DirectoryInUseError, ServerError, ValkeyServer, processes
from worker.dev.servers.processes import Guarded

pytestmark = pytest.mark.needs_servers


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[ValkeyServer]:
    with ValkeyServer(tmp_path / "a b") as running:
        yield running


def put(valkey: ValkeyServer) -> None:
    with Redis.from_url(valkey.url) as client:
        client.set("kept", "yes")


def got(valkey: ValkeyServer) -> object:
    with Redis.from_url(valkey.url) as client:
        return client.get("kept")


def test_it_refuses_work_rather_than_forget_some(valkey: ValkeyServer) -> None:
    with Redis.from_url(valkey.url) as client:
        policy = client.config_get("maxmemory-policy")

    assert policy == {"maxmemory-policy": "noeviction"}


def test_a_restart_keeps_the_port_and_the_data(valkey: ValkeyServer) -> None:
    put(valkey)
    url, pid = valkey.url, valkey.pid

    valkey.restart()

    assert valkey.url == url
    assert valkey.pid != pid
    assert got(valkey) == b"yes"


def test_data_survives_the_kill_of_the_server(valkey: ValkeyServer) -> None:
    put(valkey)

    valkey.kill()
    running = valkey.running
    valkey.start()

    assert not running
    assert got(valkey) == b"yes"


def test_without_append_only_a_kill_loses_everything(tmp_path: Path) -> None:
    with ValkeyServer(tmp_path, append_only=False) as valkey:
        put(valkey)
        valkey.kill()
        valkey.start()

        assert got(valkey) is None


def test_a_wiped_server_comes_back_empty_on_the_same_port(valkey: ValkeyServer) -> None:
    put(valkey)
    url = valkey.url
    with pytest.raises(ServerError, match="stop it, then wipe"):
        valkey.wipe()

    valkey.kill()
    valkey.wipe()
    valkey.start()

    assert valkey.url == url
    assert got(valkey) is None


def test_a_paused_server_answers_nobody_until_it_resumes(valkey: ValkeyServer) -> None:
    with Redis.from_url(valkey.url, socket_timeout=0.2) as client:
        valkey.pause()
        with pytest.raises(RedisTimeoutError):
            client.ping()

        valkey.resume()

        assert got(valkey) is None


def test_a_second_manager_of_the_directory_is_told_who_has_it(valkey: ValkeyServer) -> None:
    with pytest.raises(DirectoryInUseError, match=rf"in use by process {os.getpid()}\b"):
        ValkeyServer(valkey.directory).start()
    with pytest.raises(DirectoryInUseError):
        ValkeyServer(valkey.directory).wipe()

    assert got(valkey) is None


def test_it_takes_over_from_a_server_whose_reaper_was_killed(tmp_path: Path) -> None:
    with owner("ValkeyServer", tmp_path) as other:
        os.kill(other.reaper, 9)
        other.kill()
        assert processes.is_alive(other.server)

        with ValkeyServer(tmp_path) as valkey:
            assert not processes.is_alive(other.server)
            assert got(valkey) is None


def test_it_stops_its_own_server_even_when_the_reaper_was_killed(valkey: ValkeyServer) -> None:
    assert valkey._process
    pid = valkey.pid
    os.kill(valkey._process._reaper.pid, 9)

    valkey.stop()

    assert not processes.is_alive(pid)


def test_a_stop_in_whose_course_the_server_ends_closes_what_it_held(
    valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid, guarded = valkey.pid, valkey._process
    assert guarded

    def end_while_it_is_looked_at(process: Guarded) -> bool:
        os.kill(process._reaper.pid, 9)
        process._reaper.wait()
        monkeypatch.undo()
        return True

    monkeypatch.setattr(Guarded, "running", property(end_while_it_is_looked_at))
    valkey.stop()

    assert guarded._pipe.closed
    assert not processes.is_alive(pid)


def test_the_next_start_listens_where_the_last_did_unless_somebody_else_does(
    tmp_path: Path,
) -> None:
    with ValkeyServer(tmp_path) as first:
        url, port = first.url, first.port
    assert ValkeyServer(tmp_path).left_url == url
    with ValkeyServer(tmp_path) as second:
        assert second.url == url
        assert ValkeyServer(tmp_path).left_url is None  # somebody listens there

    with socket.create_server(("127.0.0.1", port)), ValkeyServer(tmp_path) as third:
        assert third.port != port
