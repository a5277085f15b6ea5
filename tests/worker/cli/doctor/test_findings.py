"""Each sickness is told by name with what to do, and a healthy stack has none."""

from dataclasses import replace
from datetime import timedelta

import pytest

from db.inspection import PostgresFacts
from worker.cli.doctor.findings import (
    Severity,
    judge_machine,
    judge_postgresql,
    judge_redis,
)
from worker.cli.doctor.machine import MachineFacts

POOL_SIZE = 20
POSTGRESQL = PostgresFacts(
    version=180_001,
    encoding="UTF8",
    fsync=True,
    full_page_writes=True,
    synchronous_commit="on",
    autovacuum=True,
    connections_max=97,
    connections=12,
    is_standby=False,
    is_read_only=False,
    is_pooled=False,
    oldest_transaction=timedelta(seconds=3),
    role_settings={},
    missing_privileges=(),
    round_trip_s=0.0004,
    clock_ahead_s=0.01,
)
REDIS = {
    "redis_version": "7.2.4",
    "role": "master",
    "maxmemory": 0,
    "used_memory": 2**20,
    "aof_enabled": 1,
}
MACHINE = MachineFacts(
    python="CPython 3.13.1",
    event_loop="uvloop",
    open_files_max=65_536,
    drain_grace=timedelta(seconds=25),
    timeouts={"send_letter": timedelta(seconds=10)},
    reports_trouble=None,
)


def postgresql(**changes):
    return list(judge_postgresql(replace(POSTGRESQL, **changes), POOL_SIZE))


def redis(round_trip_s=0.0004, clock_ahead_s=0.0, **changes):
    return list(judge_redis(REDIS | changes, round_trip_s, clock_ahead_s))


def machine(**changes):
    return list(judge_machine(replace(MACHINE, **changes)))


def sick(findings):
    return {one.subject: one.severity for one in findings if one.severity is not Severity.FINE}


def test_a_healthy_stack_has_nothing_to_do():
    assert sick([*postgresql(), *redis(), *machine()]) == {}


def test_a_pooler_is_told_with_what_it_takes_from_handlers():
    [pooler] = [one for one in postgresql(is_pooled=True) if one.subject == "pooler"]

    assert (pooler.found, pooler.severity) == ("between", Severity.FINE)
    assert "LISTEN" in pooler.advice


@pytest.mark.parametrize(
    ("changes", "subject", "severity"),
    [
        ({"version": 90_600}, "version", Severity.PROBLEM),
        ({"encoding": "SQL_ASCII"}, "encoding", Severity.PROBLEM),
        ({"is_standby": True}, "takes writes", Severity.PROBLEM),
        ({"is_read_only": True}, "takes writes", Severity.PROBLEM),
        ({"missing_privileges": ("jobs: UPDATE",)}, "rights", Severity.PROBLEM),
        ({"fsync": False}, "durability", Severity.PROBLEM),
        ({"full_page_writes": False}, "durability", Severity.PROBLEM),
        ({"synchronous_commit": "off"}, "durability", Severity.WARNING),
        ({"autovacuum": False}, "autovacuum", Severity.WARNING),
        ({"connections": 90}, "connections", Severity.WARNING),
        ({"oldest_transaction": timedelta(hours=2)}, "oldest transaction", Severity.WARNING),
        (
            {"role_settings": {"idle_session_timeout": "5s"}},
            "idle_session_timeout",
            Severity.WARNING,
        ),
        ({"round_trip_s": 0.05}, "round trip", Severity.WARNING),
        ({"clock_ahead_s": -30.0}, "clock", Severity.WARNING),
    ],
)
def test_a_sick_postgresql_is_told_with_what_to_do(changes, subject, severity):
    findings = postgresql(**changes)

    assert sick(findings) == {subject: severity}
    assert all(one.advice for one in findings if one.severity is not Severity.FINE)


@pytest.mark.parametrize(
    ("changes", "subject", "severity"),
    [
        ({"redis_version": "5.0.14"}, "version", Severity.PROBLEM),
        ({"role": "slave"}, "takes writes", Severity.PROBLEM),
        (
            {"maxmemory": 2**30, "maxmemory_policy": "allkeys-lru"},
            "memory",
            Severity.PROBLEM,
        ),
        ({"maxmemory": 2**20, "maxmemory_policy": "noeviction"}, "memory", Severity.WARNING),
        ({"round_trip_s": 0.8}, "round trip", Severity.WARNING),
        ({"clock_ahead_s": 15.0}, "clock", Severity.WARNING),
    ],
)
def test_a_sick_redis_is_told_with_what_to_do(changes, subject, severity):
    findings = redis(**changes)

    assert sick(findings) == {subject: severity}
    assert all(one.advice for one in findings if one.severity is not Severity.FINE)


def test_a_valkey_is_told_by_its_own_version():
    assert redis(valkey_version="8.1.0")[0].found == "Valkey 8.1.0"


@pytest.mark.parametrize(
    ("changes", "subject", "severity"),
    [
        ({"event_loop": "asyncio"}, "event loop", Severity.WARNING),
        ({"open_files_max": 256}, "open files", Severity.WARNING),
        ({"reports_trouble": "no such bucket"}, "reports", Severity.PROBLEM),
    ],
)
def test_a_sick_machine_is_told_with_what_to_do(changes, subject, severity):
    assert sick(machine(**changes)) == {subject: severity}
