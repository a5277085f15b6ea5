"""A supervisor restarts what crashes, ever more slowly, and stops when it is told to."""

import asyncio
import os
import signal
import subprocess
import sys
from itertools import accumulate, chain

import pytest

from worker.monitoring.events import Events
from worker.process.supervisor import (
    RESTART_WAIT_BASE_S,
    RESTART_WAIT_MAX_S,
    STEADY_AFTER_S,
    Supervisor,
    restart_wait_s,
    wait_for,
)

DEADLINE_S = 30


class RecordedWaits:
    """Takes no time between a crash and the restart; after `last`, the supervisor is stopped."""

    def __init__(self, last):
        self._last = last
        self.waited_s = []

    async def __call__(self, _stopping, wait_s):
        self.waited_s.append(wait_s)
        return len(self.waited_s) == self._last


class Clock:
    """A clock by which each run of a child lasts as long as a test says."""

    def __init__(self, *runs_s):
        # It is read when a child starts, and when it has ended.
        self._times = accumulate(chain.from_iterable((0.0, run_s) for run_s in runs_s))

    def __call__(self):
        return next(self._times)


@pytest.fixture
def starts(tmp_path):
    """Return the file in which each child leaves its number."""
    path = tmp_path / "starts"
    path.touch()
    return path


@pytest.fixture
def supervise(starts):
    """Run a supervisor of children that run a shell script; return its code and its events."""

    async def run(script, *, count=1, restart=True, on_crash=None, **options):
        emitted = []

        def subscribe(name, fields):
            emitted.append((name, fields))
            if on_crash is not None:
                on_crash()

        drain = "trap 'exit 0' TERM"
        note_start = f'echo "$TELLER_CHILD_SLOT" >> {starts}'
        command = ["/bin/sh", "-c", f"{drain}; {note_start}; {script}"]
        supervisor = Supervisor(command, count, Events(subscribe), restart=restart, **options)
        async with asyncio.timeout(DEADLINE_S):
            return await supervisor.run(), emitted

    return run


def stop_this_process():
    os.kill(os.getpid(), signal.SIGTERM)


async def test_a_child_that_crashes_is_reported_and_started_again(supervise, starts):
    waits = RecordedWaits(last=3)

    code, emitted = await supervise("exit 7", wait=waits)

    assert starts.read_text().split() == ["0", "0", "0"]
    assert emitted == [
        ("worker.crashed", {"slot": 0, "exit_code": 7, "restart_in_s": wait_s})
        for wait_s in waits.waited_s
    ]
    assert code == 1


async def test_one_that_is_killed_is_a_crash_too(supervise):
    _, emitted = await supervise("kill -KILL $$", wait=RecordedWaits(last=1))

    assert [fields["exit_code"] for _, fields in emitted] == [-signal.SIGKILL]


async def test_the_wait_doubles_with_each_crash_in_a_row_up_to_a_bound(supervise):
    waits = RecordedWaits(last=8)
    await supervise("exit 1", wait=waits, clock=Clock(*[1.0] * 8))

    assert waits.waited_s == [1, 2, 4, 8, 16, 30, 30, 30]


async def test_a_child_that_had_run_for_a_while_is_restarted_soon(supervise):
    waits = RecordedWaits(last=4)
    await supervise("exit 1", wait=waits, clock=Clock(1.0, 1.0, STEADY_AFTER_S + 1.0, 1.0))

    assert waits.waited_s == [1, 2, RESTART_WAIT_BASE_S, 1]


def test_no_number_of_crashes_is_too_large_to_wait_for():
    assert restart_wait_s(10_000) == RESTART_WAIT_MAX_S


async def test_a_crash_of_one_child_leaves_the_others_alone(supervise, starts):
    async def wait(stopping, _wait_s):
        if starts.read_text().count("1") == 3:
            stop_this_process()
            return await wait_for(stopping, DEADLINE_S)
        return False

    script = '[ "$TELLER_CHILD_SLOT" = 1 ] && exit 3; exec sleep 60'
    code, emitted = await supervise(script, count=2, wait=wait)

    assert sorted(starts.read_text().split()) == ["0", "1", "1", "1"]
    assert {fields["slot"] for _, fields in emitted} == {1}
    assert code == 1


async def test_a_stop_while_it_waits_ends_it_without_another_child(supervise, starts):
    code, emitted = await supervise("exit 3", on_crash=stop_this_process)

    assert (code, len(emitted), starts.read_text().split()) == (1, 1, ["0"])


async def test_a_stop_while_a_child_starts_reaches_that_child(supervise, starts):
    async def wait(_stopping, _wait_s):
        stop_this_process()  # the loop handles it once the next child is being started
        return False

    script = f'[ "$(wc -l < {starts})" = 1 ] && exit 3; exec sleep 60'
    _, emitted = await supervise(script, wait=wait)

    assert len(emitted) == 1, "the second child ended by the signal, long before its sleep"


async def test_a_stop_is_passed_on_to_every_child_and_a_drain_is_a_good_end(supervise, starts):
    async def stop_once_both_run():
        while True:
            if len(starts.read_text().split()) == 2:
                return stop_this_process()
            await asyncio.sleep(0.01)

    stopping = asyncio.create_task(stop_once_both_run())
    code, emitted = await supervise("while :; do sleep 0.02; done", count=2)
    await stopping

    assert (code, emitted) == (0, [])


@pytest.mark.parametrize(("exit_code", "expected"), [(0, 0), (3, 1)])
async def test_without_restart_a_child_runs_once(supervise, starts, exit_code, expected):
    code, emitted = await supervise(f"exit {exit_code}", count=2, restart=False)

    assert (code, emitted) == (expected, [])
    assert sorted(starts.read_text().split()) == ["0", "1"]


async def test_a_wait_says_whether_it_was_cut_short():
    stopping = asyncio.Event()
    assert await wait_for(stopping, 0.01) is False

    stopping.set()
    assert await wait_for(stopping, DEADLINE_S) is True


@pytest.mark.slow
def test_a_child_whose_supervisor_is_gone_is_stopped():
    program = (
        "import sys, time; from worker.process.supervisor import stop_with_supervisor; "
        "stop_with_supervisor(); print('up', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "TELLER_CHILD_SLOT": "0"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "up\n"
        child.stdin.close()  # as the system does when the supervisor ends, however it ends
        assert child.wait(DEADLINE_S) == -signal.SIGTERM
