"""Look at servers, settings and this machine, and say what to do about what is wrong."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Final

import typer
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, RedisError
from rich.console import Console
from rich.table import Table

from db.engine import open_engine
from db.inspection import inspect
from db.migrate import SchemaOutdatedError, require_current
from worker.cli._faults import sentence_about
from worker.cli._options import command_line
from worker.cli.doctor.findings import (
    Finding,
    Severity,
    judge_machine,
    judge_postgresql,
    judge_redis,
)
from worker.cli.doctor.machine import inspect_machine
from worker.settings import load_settings
from worker.tables import add_row, json_text

if TYPE_CHECKING:
    from worker.settings import Settings

app = command_line()

ANSWER_WAIT_S: Final = 10.0
MARKS: Final = {Severity.FINE: ("ok", ""), Severity.WARNING: ("!", "yellow")}
WORST: Final = ("X", "red")

Json = Annotated[bool, typer.Option("--json", help="JSON for programs.")]


@app.command()
def doctor(*, json: Json = False) -> None:
    """Look at everything that a worker started here would depend on.

    Exit code 0: nothing is wrong. 1: it works, with warnings. 2: no job would run, or what is
    accepted could be lost. Nothing is changed, and no secret is shown.
    """
    findings = asyncio.run(_examine(load_settings()))
    if json:
        typer.echo(json_text([asdict(one) | {"severity": one.severity.name} for one in findings]))
    else:
        _show(findings, Console())
    raise typer.Exit(int(max(one.severity for one in findings)))


async def _examine(settings: "Settings") -> list[Finding]:
    return [finding async for part in _parts(settings) for finding in part]


async def _parts(settings: "Settings") -> AsyncIterator[Sequence[Finding]]:
    yield await _postgresql(settings)
    yield await _redis(settings)
    yield list(judge_machine(await inspect_machine(settings)))


async def _postgresql(settings: "Settings") -> list[Finding]:
    url, schema = str(settings.database_url), settings.database_schema
    try:
        async with (
            asyncio.timeout(ANSWER_WAIT_S),
            open_engine(
                url, pool_size=1, application_name="teller-doctor", schema=schema
            ) as engine,
        ):
            async with engine.connect() as connection:
                facts = await inspect(connection)
            try:
                await require_current(engine, schema)
                tables = Finding("PostgreSQL", "tables", f"current, in {schema}")
            except SchemaOutdatedError as error:
                found, _, advice = str(error).partition(": ")
                tables = Finding("PostgreSQL", "tables", found, Severity.PROBLEM, advice)
    except Exception as error:  # noqa: BLE001 - whatever stands in the way is the finding
        return [_unreachable("PostgreSQL", error)]
    return [*judge_postgresql(facts, settings.pool_size), tables]


async def _redis(settings: "Settings") -> list[Finding]:
    redis = Redis.from_url(str(settings.redis_url), socket_timeout=ANSWER_WAIT_S)
    try:
        async with asyncio.timeout(ANSWER_WAIT_S), redis:
            await redis.time()  # the first includes connecting
            began = time.perf_counter()
            seconds, microseconds = await redis.time()
            round_trip_s = time.perf_counter() - began
            ahead_s = seconds + microseconds / 1e6 - time.time() + round_trip_s / 2
            try:
                info = await redis.info()
            except NoPermissionError:
                advice = "allow +info: without it nobody sees a replica, or a full memory"
                return [Finding("Redis", "rights", "no INFO", Severity.WARNING, advice)]
    except (RedisError, OSError) as error:
        return [_unreachable("Redis", error)]
    return list(judge_redis(info, round_trip_s, ahead_s))


def _unreachable(part: str, error: Exception) -> Finding:
    sentence = sentence_about(error) or f"{type(error).__name__} when it was asked"
    found, _, advice = sentence.partition(": ")
    return Finding(part, "answers", found, Severity.PROBLEM, advice)


def _show(findings: Sequence[Finding], console: Console) -> None:
    table = Table("", "where", "what", "found", "what to do", box=None, pad_edge=False)
    for one in findings:
        mark, style = MARKS.get(one.severity, WORST)
        add_row(table, mark, one.part, one.subject, one.found, one.advice, style=style)
    console.print(table)
    warnings = sum(one.severity is Severity.WARNING for one in findings)
    problems = sum(one.severity is Severity.PROBLEM for one in findings)
    console.print(f"{len(findings)} looked at: {problems} problems, {warnings} warnings")
