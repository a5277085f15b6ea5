"""A real PostgreSQL comes up, goes down, and is found again as it was left."""

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worker.dev.servers.kit import DEADLINE_S, eventually, owner, sql
from worker.dev.servers import DirectoryInUseError, PostgresServer, ServerError, processes, server

pytestmark = pytest.mark.needs_servers


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    with PostgresServer(tmp_path_factory.mktemp("postgres") / "a b", durable=False) as running:
        yield running


def test_it_is_the_version_and_has_the_settings_the_project_needs(postgres: PostgresServer) -> None:
    version = sql(postgres.url, "show server_version_num")
    settings = ("deadlock_timeout", "max_connections", "timezone", "unix_socket_directories")
    values = [sql(postgres.url, f"show {name}") for name in settings]

    assert int(version) >= 180000
    assert values == ["200ms", "200", "UTC", ""]
    assert sql(postgres.url, "select casefold('STRASSE' collate pg_unicode_fast)") == "strasse"


def test_a_restart_keeps_the_port_and_the_data(postgres: PostgresServer) -> None:
    sql(postgres.url, "create table kept_over_restart as select 1 as n")
    url, pid = postgres.url, postgres.pid

    postgres.restart()

    assert postgres.url == url
    assert postgres.pid != pid
    assert sql(url, "select n from kept_over_restart") == "1"


def test_a_commit_survives_the_kill_of_the_server_even_when_not_durable(
    postgres: PostgresServer,
) -> None:
    sql(postgres.url, "create table kept_over_kill as select 1 as n")

    postgres.kill()
    running = postgres.running
    postgres.start()

    assert not running
    assert sql(postgres.url, "select n from kept_over_kill") == "1"


def test_it_starts_again_after_somebody_else_killed_it(postgres: PostgresServer) -> None:
    os.kill(postgres.pid, 9)
    eventually(lambda: not postgres.running, "the end to be noticed")

    postgres.start()

    assert sql(postgres.url, "select 1") == "1"


def test_a_paused_server_answers_nobody_until_it_resumes(postgres: PostgresServer) -> None:
    postgres.pause()
    address = ("127.0.0.1", postgres.port)
    with socket.create_connection(address, 1) as client:
        client.settimeout(0.2)
        client.sendall((8).to_bytes(4, "big") + (80877103).to_bytes(4, "big"))  # "TLS?"
        with pytest.raises(TimeoutError):
            client.recv(1)

        postgres.resume()

        client.settimeout(DEADLINE_S)
        assert client.recv(1) == b"N"


def test_a_paused_server_can_be_restarted(postgres: PostgresServer) -> None:
    postgres.pause()

    postgres.restart()

    assert sql(postgres.url, "select 1") == "1"


def test_a_second_manager_of_the_directory_is_told_who_has_it(postgres: PostgresServer) -> None:
    with pytest.raises(DirectoryInUseError, match=rf"in use by process {os.getpid()}\b"):
        PostgresServer(postgres.directory).start()

    assert sql(postgres.url, "select 1") == "1"


def test_a_stopped_server_is_gone_and_says_so(tmp_path: Path) -> None:
    stopped = PostgresServer(tmp_path, durable=False)
    with pytest.raises(ServerError, match="start it first"):
        _ = stopped.url
    stopped.start()
    pid = stopped.pid
    stopped.stop()
    stopped.stop()

    assert not processes.is_alive(pid)
    assert not stopped.running
    with pytest.raises(ServerError, match="is not running: start it first"):
        _ = stopped.pid


def test_a_port_taken_meanwhile_is_given_up_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        ports = iter([taken, taken, server.free_port()])
        monkeypatch.setattr(server, "free_port", lambda: next(ports))
        monkeypatch.setattr(server, "RETRY_PAUSE_S", 0.0)

        with PostgresServer(tmp_path, durable=False) as postgres:
            assert postgres.port != taken


def test_a_failed_start_leaves_nothing_and_shows_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = PostgresServer(tmp_path, max_connections=-1)

    with pytest.raises(ServerError, match="outside the valid range"):
        broken.start()

    assert not broken.running
    PostgresServer(tmp_path).stop()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "lock", "server.log"]


def test_a_failed_initdb_leaves_no_half_made_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.dev.servers.postgres._INITDB", ("--no-such-option",))

    with pytest.raises(ServerError, match=r"(?s)initdb failed.*no-such-option"):
        PostgresServer(tmp_path).start()

    assert sorted(path.name for path in tmp_path.iterdir()) == ["lock", "server.log"]


def test_a_start_that_takes_too_long_is_ended(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgres.stop()
    with monkeypatch.context() as patch:
        patch.setattr(server, "START_TIMEOUT_S", 0.0)
        patch.setattr(PostgresServer, "_ready", lambda *_: False)
        with pytest.raises(ServerError, match="was not ready after 0 s"):
            postgres.start()
        assert not postgres.running

    postgres.start()


def test_a_process_id_that_came_round_again_is_no_obstacle_and_not_signalled(
    postgres: PostgresServer,
) -> None:
    postgres.stop()
    with subprocess.Popen(["sleep", "60"]) as innocent:
        (postgres.data / "postmaster.pid").write_text(f"{innocent.pid}\n{postgres.data}\n")

        postgres.start()

        assert innocent.poll() is None
        innocent.kill()


def test_it_takes_over_from_a_server_whose_reaper_was_killed(postgres: PostgresServer) -> None:
    postgres.stop()
    with owner("PostgresServer", postgres.directory) as other:
        os.kill(other.reaper, 9)
        other.kill()
        assert processes.is_alive(other.server)

        postgres.start()

        assert not processes.is_alive(other.server)
        assert sql(postgres.url, "select 1") == "1"
