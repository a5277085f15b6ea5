"""`python -m worker COMMAND`: every file or folder in `worker/cli/` is a command."""

import sys
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

import typer
from typer.core import TyperGroup

from worker import cli
from worker.errors import TellerError, report_error

if TYPE_CHECKING:
    from typer._click.core import Command, Context  # typer carries its own copy of click


class Commands(TyperGroup):
    """Finds commands by file name and imports only the one that is called."""

    def list_commands(self, ctx: "Context") -> list[str]:
        """Return every command's name."""
        del ctx
        return sorted(
            module.name for module in iter_modules(cli.__path__) if not module.name.startswith("_")
        )

    def get_command(self, ctx: "Context", cmd_name: str) -> "Command | None":
        """Return one command, or None: click then says what there is."""
        if cmd_name not in self.list_commands(ctx):
            return None
        module = import_module(f"{cli.__name__}.{cmd_name}")
        if hasattr(module, "__path__"):  # a command of several files
            module = import_module(f"{module.__name__}.command")
        command = typer.main.get_command(module.app)
        command.name = cmd_name
        return command


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,  # locals hold payloads and passwords
    help="Teller: background jobs whose effects happen exactly once.",
)


@app.callback()
def main() -> None:
    """Take the options that all commands share: none."""


def run() -> int:
    """Run the command line and return its exit code; an expected error is one line."""
    try:
        app(standalone_mode=True)
    except TellerError as error:
        return report_error(error)
    return 0


if __name__ == "__main__":
    sys.exit(run())
