"""However the process that owns a server dies, the server goes with it."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.worker.dev.servers.kit import eventually_gone, owner
from worker.dev.servers import ValkeyServer

pytestmark = pytest.mark.needs_servers


@pytest.mark.parametrize("name", ["PostgresServer", "ValkeyServer"])
def test_no_server_survives_the_kill_of_its_owner(name: str, tmp_path: Path) -> None:
    with owner(name, tmp_path) as owned:
        owned.kill()

        eventually_gone(owned.server)
        eventually_gone(owned.reaper)
    assert not list(tmp_path.glob("data/*.pid"))  # it was a clean shutdown


def test_not_even_a_paused_one(tmp_path: Path) -> None:
    with owner("PostgresServer", tmp_path, then="server.pause()") as owned:
        owned.kill()

        eventually_gone(owned.server)
    assert not (tmp_path / "data/postmaster.pid").exists()


def test_not_even_when_the_owner_has_forked(tmp_path: Path) -> None:
    line = "os.fork() or sys.stdin.read()"
    with owner("ValkeyServer", tmp_path, then=line) as owned:
        owned.kill()

        eventually_gone(owned.server)


def test_a_forked_child_cannot_stop_its_parents_server(tmp_path: Path) -> None:
    line = "os.fork() or (server.stop(), os._exit(0)); os.wait(); assert server.running"
    with owner("ValkeyServer", tmp_path, then=line) as owned:
        os.kill(owned.server, 0)


def test_a_reaper_told_to_stop_takes_its_server_along(tmp_path: Path) -> None:
    with owner("ValkeyServer", tmp_path) as owned:
        os.kill(owned.reaper, signal.SIGTERM)

        eventually_gone(owned.server)


def test_the_lock_goes_with_the_owner_so_the_next_start_need_not_wait(tmp_path: Path) -> None:
    with owner("ValkeyServer", tmp_path) as owned:
        owned.kill()

        with ValkeyServer(tmp_path) as valkey:
            assert valkey.pid != owned.server


def test_a_start_waits_until_the_last_process_of_the_server_before_has_ended(
    tmp_path: Path,
) -> None:
    valkey = ValkeyServer(tmp_path)
    with valkey.log.open() as log, subprocess.Popen(["sleep", "0.3"], stdout=log) as straggler:
        log.close()
        with valkey:
            assert straggler.poll() == 0
