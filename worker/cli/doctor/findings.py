"""What the facts mean: pure functions from facts to findings, each with what to do."""

from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from db.inspection import PostgresFacts
    from worker.cli.doctor.machine import MachineFacts

POSTGRESQL_MIN: Final = 140_000
REDIS_MIN: Final = (7, 0)
ROUND_TRIP_MAX_S: Final = 0.005
"""From here on the network decides how fast jobs are: one makes about four round trips."""
CLOCK_MAX_S: Final = 2.0
TRANSACTION_AGE_MAX: Final = timedelta(minutes=5)
OPEN_FILES_MIN: Final = 1_024
FULL_FROM: Final = 0.9
MILLISECONDS: Final = {"ms": 1, "s": 1_000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}


class Severity(IntEnum):
    """How much a finding matters; the command's exit code is the worst one's."""

    FINE = 0
    WARNING = 1
    """It works, and will not always, or not as fast as it could."""
    PROBLEM = 2
    """No job runs, or what is accepted can be lost."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    part: str
    subject: str
    found: str
    severity: Severity = Severity.FINE
    advice: str = ""


def judge_postgresql(facts: "PostgresFacts", pool_size: int) -> "Iterator[Finding]":
    """Yield what a PostgreSQL's facts mean.

    Args:
        facts: the server's.
        pool_size: connections that one worker process opens.
    """
    part = "PostgreSQL"
    major, minor = divmod(facts.version, 10_000)
    yield Finding(
        *(part, "version", f"{major}.{minor}"),
        *_problem(
            facts.version < POSTGRESQL_MIN,
            f"use PostgreSQL {POSTGRESQL_MIN // 10_000} or newer",
        ),
    )
    yield Finding(
        *(part, "encoding", facts.encoding),
        *_problem(facts.encoding != "UTF8", "create the database with ENCODING 'UTF8'"),
    )
    yield _writes(facts)
    yield Finding(
        *(part, "rights", "; ".join(facts.missing_privileges) or "granted"),
        *_problem(
            bool(facts.missing_privileges), "grant the role what it lacks, or own the tables"
        ),
    )
    yield _durability(facts)
    yield Finding(
        *(part, "autovacuum", "on" if facts.autovacuum else "off"),
        *_warning(not facts.autovacuum, "turn it on: the table of jobs grows without it"),
    )
    left = facts.connections_max - facts.connections
    yield Finding(
        *(part, "connections", f"{facts.connections} of {facts.connections_max} in use"),
        *_warning(
            left < pool_size,
            f"one worker process opens {pool_size}: raise max_connections, "
            "or lower TELLER_CONCURRENCY",
        ),
    )
    yield Finding(
        *(part, "oldest transaction", _span(facts.oldest_transaction)),
        *_warning(
            facts.oldest_transaction > TRANSACTION_AGE_MAX,
            "end it (pg_stat_activity has it): nothing that jobs update is cleaned up meanwhile",
        ),
    )
    yield Finding(
        *(part, "pooler", "between" if facts.is_pooled else "none"),
        Severity.FINE,
        "LISTEN and session locks of handlers end with their transaction"
        if facts.is_pooled
        else "",
    )
    yield from _limits(facts)
    yield from _distance(part, facts.round_trip_s, facts.clock_ahead_s)


def _writes(facts: "PostgresFacts") -> Finding:
    standing = "a standby" if facts.is_standby else "a primary"
    if facts.is_read_only:
        standing += " that only reads"
    return Finding(
        *("PostgreSQL", "takes writes", standing),
        *_problem(
            facts.is_standby or facts.is_read_only,
            "give DATABASE_URL the primary, and look for default_transaction_read_only",
        ),
    )


def _durability(facts: "PostgresFacts") -> Finding:
    off = [name for name in ("fsync", "full_page_writes") if not getattr(facts, name)]
    if off:
        found = f"{', '.join(off)} off"
        advice = "turn it on: a crash can damage or lose everything"
        return Finding("PostgreSQL", "durability", found, Severity.PROBLEM, advice)
    return Finding(
        *("PostgreSQL", "durability", f"synchronous_commit {facts.synchronous_commit}"),
        *_warning(
            facts.synchronous_commit == "off",
            "turn it on: a crash loses jobs that their callers were told of",
        ),
    )


def _limits(facts: "PostgresFacts") -> "Iterator[Finding]":
    """Yield the limits that a DBA has set, where they are shorter than the worker needs."""
    for name in ("idle_session_timeout", "statement_timeout", "transaction_timeout"):
        value = facts.role_settings.get(name)
        if value is None or not (limit_ms := _milliseconds(value)):
            continue
        yield Finding(
            *("PostgreSQL", name, f"{value} for this role"),
            *_warning(
                name == "idle_session_timeout" and limit_ms < MILLISECONDS["min"],
                "idle connections are cut and opened again: give the worker's role a longer one",
            ),
        )


def judge_redis(
    info: "Mapping[str, Any]", round_trip_s: float, clock_ahead_s: float
) -> "Iterator[Finding]":
    """Yield what a Redis' facts mean.

    Args:
        info: what it says of itself (INFO).
        round_trip_s: to it and back.
        clock_ahead_s: how far its clock is ahead of this machine's.
    """
    part = "Redis"
    name = "Valkey" if "valkey_version" in info else "Redis"
    version = str(info.get("valkey_version") or info.get("redis_version") or "unknown")
    known = tuple(int(digits) for digits in version.split(".")[:2] if digits.isdigit())
    yield Finding(
        *(part, "version", f"{name} {version}"),
        *_problem(bool(known) and known < REDIS_MIN, "use Redis 7 or Valkey"),
    )
    role = str(info.get("role", "unknown"))
    yield Finding(
        *(part, "takes writes", "a replica" if role == "slave" else role),
        *_problem(role == "slave", "give REDIS_URL the primary"),
    )
    yield _memory(info)
    keeps = bool(info.get("aof_enabled")) or bool(info.get("rdb_last_save_time"))
    yield Finding(
        part, "persistence", "on" if keeps else "none: what it loses is sent again by the relay"
    )
    yield from _distance(part, round_trip_s, clock_ahead_s)


def _memory(info: "Mapping[str, Any]") -> Finding:
    limit, used = info.get("maxmemory") or 0, info.get("used_memory", 0)
    policy = str(info.get("maxmemory_policy", "noeviction"))
    found = f"{used / 2**20:.0f} MiB, " + (
        f"of {limit / 2**20:.0f} MiB, {policy}" if limit else "no limit"
    )
    if limit and policy.startswith("allkeys-"):
        advice = "set maxmemory-policy noeviction: it throws jobs away that it alone has"
        return Finding("Redis", "memory", found, Severity.PROBLEM, advice)
    return Finding(
        *("Redis", "memory", found),
        *_warning(
            bool(limit) and used > limit * FULL_FROM,
            "raise maxmemory: once it is full, jobs go through PostgreSQL alone",
        ),
    )


def judge_machine(facts: "MachineFacts") -> "Iterator[Finding]":
    """Yield what this machine's facts mean."""
    part = "here"
    yield Finding(part, "Python", facts.python)
    yield Finding(
        *(part, "event loop", facts.event_loop),
        *_warning(facts.event_loop != "uvloop", "install uvloop: jobs run faster with it"),
    )
    yield Finding(
        *(part, "open files", f"{facts.open_files_max}"),
        *_warning(facts.open_files_max < OPEN_FILES_MIN, f"raise ulimit -n to {OPEN_FILES_MIN}"),
    )
    longest = max(facts.timeouts, key=lambda kind: facts.timeouts[kind], default=None)
    if longest is not None:
        timeout = facts.timeouts[longest]
        found = f"{_span(facts.drain_grace)}; longest job {longest}, {_span(timeout)}"
        cut = "a deploy may cut it off, and it runs again" if timeout > facts.drain_grace else ""
        yield Finding(part, "drain", found, Severity.FINE, cut)
    yield Finding(
        *(part, "reports", facts.reports_trouble or "can be written"),
        *_problem(facts.reports_trouble is not None, "check TELLER_REPORTS_URL"),
    )


def _distance(part: str, round_trip_s: float, clock_ahead_s: float) -> "Iterator[Finding]":
    yield Finding(
        *(part, "round trip", f"{round_trip_s * 1000:.1f} ms"),
        *_warning(
            round_trip_s > ROUND_TRIP_MAX_S,
            "run workers nearer to it, or give each more slots (TELLER_CONCURRENCY)",
        ),
    )
    yield Finding(
        *(part, "clock", f"{clock_ahead_s:+.2f} s from this machine's"),
        *_warning(abs(clock_ahead_s) > CLOCK_MAX_S, "set both clocks by NTP"),
    )


def _problem(is_wrong: bool, advice: str) -> tuple[Severity, str]:  # noqa: FBT001 - one fact
    return (Severity.PROBLEM, advice) if is_wrong else (Severity.FINE, "")


def _warning(is_wrong: bool, advice: str) -> tuple[Severity, str]:  # noqa: FBT001 - one fact
    return (Severity.WARNING, advice) if is_wrong else (Severity.FINE, "")


def _milliseconds(setting: str) -> int:
    """Return a setting's time in milliseconds: 30s, 5min, or a plain number of them."""
    digits = setting.strip().rstrip("abcdefghijklmnopqrstuvwxyz ")
    unit = setting.strip()[len(digits) :].strip() or "ms"
    return int(float(digits or 0) * MILLISECONDS.get(unit, 1))


def _span(span: timedelta) -> str:
    return str(timedelta(seconds=round(span.total_seconds())))
