"""Show what happens, why, and what it is safe to do: pages for a browser."""

import getpass
from typing import Annotated, Any

import typer

from worker.cli._options import UsageError, command_line
from worker.desk.settings import LOOPBACK, load_desk_settings
from worker.settings import load_settings

app = command_line()

Host = Annotated[str | None, typer.Option(help="The address to listen on; TELLER_DESK_HOST.")]
Port = Annotated[int | None, typer.Option(min=0, max=65_535, help="The port; TELLER_DESK_PORT.")]
Operate = Annotated[
    bool, typer.Option("--operate", help="Let whoever opens the link act, and not only look.")
]
Hash = Annotated[
    bool, typer.Option("--hash", help="Ask for a password, print what a file of users keeps of it.")
]


@app.command()
def desk(
    host: Host = None, port: Port = None, *, operate: Operate = False, hash_: Hash = False
) -> None:
    """Serve the desk, and print the link that opens it.

    The link works once, on this machine. For others, set TELLER_DESK_USERS to a file of users, or
    TELLER_DESK_USER_HEADER to the header in which your proxy says who is there.
    """
    if hash_:
        _print_hash()
        return
    serving = _import_server()
    changed = {"host": host, "port": port}
    desk_settings = load_desk_settings().model_copy(
        update={name: value for name, value in changed.items() if value is not None}
    )
    if not desk_settings.decides_who and desk_settings.host not in LOOPBACK:
        raise UsageError(
            f"the desk would be open to all who reach {desk_settings.host}: set TELLER_DESK_USERS "
            "or TELLER_DESK_USER_HEADER first"
        )
    serving.serve(load_settings(), desk_settings, operate=operate, say=typer.echo)


def _import_server() -> Any:  # noqa: ANN401 - a module
    try:
        from worker.desk import server
    except ModuleNotFoundError as error:
        raise UsageError(
            f"the desk needs {error.name}, which is not installed: pip install 'teller[desk]'"
        ) from None
    return server


def _print_hash() -> None:
    from worker.desk.access import hash_password

    password = getpass.getpass("Password: ")
    if not password or getpass.getpass("Again: ") != password:
        raise UsageError("that was not the same password twice")
    typer.echo(hash_password(password))
