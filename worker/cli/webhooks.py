"""Add, list, disable and remove endpoints that hear of jobs' ends."""

import asyncio
import json as json_library
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from db.webhooks import SECRETS_MAX, Endpoints, EndpointSummary
from jobs._webhooks.messages import WebhookURLError, check_url, new_secret
from worker.cli._connections import open_connections
from worker.cli._options import UsageError, command_line
from worker.tables import add_row

app = command_line(help=__doc__, no_args_is_help=True)

NAME_CHARACTERS_MAX = 100

Found = TypeVar("Found")

Name = Annotated[str, typer.Argument(help="The endpoint's name, as callers say it: notify=NAME.")]
URL = Annotated[str, typer.Argument(metavar="URL", help="Where deliveries are posted.")]
Json = Annotated[bool, typer.Option("--json", help="JSON for programs.")]
Reason = Annotated[str, typer.Option(help="Shown with the endpoint.")]


@app.command("list")
def list_(*, json: Json = False) -> None:
    """List the endpoints, and how their deliveries go."""
    endpoints = asyncio.run(_on_endpoints(Endpoints.list))
    if json:
        typer.echo(json_library.dumps([_as_dict(one) for one in endpoints], indent=2))
    elif endpoints:
        Console().print(_table(endpoints))
    else:
        typer.echo("no endpoints: add one with `webhooks add NAME URL`")


@app.command()
def add(name: Name, url: URL) -> None:
    """Add an endpoint, and print the secret that its receiver checks signatures with."""
    if not 1 <= len(name) <= NAME_CHARACTERS_MAX:
        raise UsageError(f"an endpoint's name has 1 to {NAME_CHARACTERS_MAX} characters")
    try:
        check_url(url)
    except WebhookURLError as error:
        raise UsageError(str(error)) from error
    secret = new_secret()
    if not asyncio.run(_on_endpoints(lambda endpoints: endpoints.add(name, url, secret))):
        raise UsageError(f"there is an endpoint {name} already: remove it, or use another name")
    typer.echo(f"{name} added. Its secret, which is shown only now:\n{secret}")


@app.command()
def rotate(name: Name) -> None:
    """Make a new secret, and print it; the ones before go on being signed with for a while."""
    secret = new_secret()
    _require(name, lambda endpoints: endpoints.rotate(name, secret))
    typer.echo(
        f"deliveries to {name} are signed with the last {SECRETS_MAX} secrets from now on. "
        f"The new one, which is shown only now:\n{secret}"
    )


@app.command()
def disable(name: Name, *, reason: Reason = "disabled by an operator") -> None:
    """Deliver nothing there until it is enabled: what ends meanwhile is not told."""
    _require(name, lambda endpoints: endpoints.disable(name, reason))
    typer.echo(f"{name} is disabled")


@app.command()
def enable(name: Name) -> None:
    """Deliver there again."""
    _require(name, lambda endpoints: endpoints.enable(name))
    typer.echo(f"{name} is enabled")


@app.command()
def remove(name: Name) -> None:
    """Forget an endpoint; what waits to be delivered there is cancelled."""
    _require(name, lambda endpoints: endpoints.remove(name))
    typer.echo(f"{name} is removed")


def _require(name: str, change: Callable[[Endpoints], Awaitable[bool]]) -> None:
    if not asyncio.run(_on_endpoints(change)):
        raise UsageError(f"there is no endpoint {name} to change: see `webhooks list`")


async def _on_endpoints(work: Callable[[Endpoints], Awaitable[Found]]) -> Found:
    async with open_connections("webhooks") as opened, opened.sessions.begin() as session:
        return await work(Endpoints(session))


def _table(endpoints: list[EndpointSummary]) -> Table:
    table = Table("endpoint", "URL", "state", "since", "waiting")
    for one in endpoints:
        state, since = _state_of(one)
        add_row(table, one.name, one.url, state, since, str(one.waiting))
    return table


def _state_of(endpoint: EndpointSummary) -> tuple[str, str]:
    """Return how the deliveries go, and since when."""
    if endpoint.disabled_at is not None:
        return f"disabled: {endpoint.disabled_because}", f"{endpoint.disabled_at:%Y-%m-%d %H:%M}"
    if endpoint.failing_since is not None:
        return "failing", f"{endpoint.failing_since:%Y-%m-%d %H:%M}"
    return "well", f"{endpoint.created_at:%Y-%m-%d %H:%M}"


def _as_dict(endpoint: EndpointSummary) -> dict[str, object]:
    state, _ = _state_of(endpoint)
    times = ("created_at", "failing_since", "disabled_at")
    return {
        "name": endpoint.name,
        "url": endpoint.url,
        "state": state.partition(":")[0],
        **{name: _text(getattr(endpoint, name)) for name in times},
        "disabled_because": endpoint.disabled_because,
        "secrets": endpoint.secrets,
        "waiting": endpoint.waiting,
    }


def _text(at: object) -> str | None:
    return None if at is None else str(at)
