"""`python -m worker COMMAND`: every file or folder in `worker/cli/` is a command."""

import sys

from worker.process.signals import hold_signals

if sys.argv[1:2] == ["run"]:
    hold_signals()  # before the imports below, which take a second

from collections.abc import Iterator, Mapping
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from worker import cli
from worker.cli._boundary import run_guarded

if TYPE_CHECKING:
    from typer._click.core import Command, Context  # typer carries its own copy of click


def command_files() -> list[str]:
    """Return the name of every command: a file, or a folder whose `command.py` is the command."""
    names = (module.name for module in iter_modules(cli.__path__))
    return sorted(name for name in names if not name.startswith("_"))


class CommandFiles(Mapping[str, "Command"]):
    """The commands by name. Looking one up imports it, and no other."""

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(command_files())

    def __len__(self) -> int:
        """Count the commands."""
        return len(command_files())

    def __getitem__(self, name: str) -> "Command":
        """Import a command.

        Raises:
            KeyError: there is none of that name.
        """
        if name not in command_files():
            raise KeyError(name)
        module = import_module(f"{cli.__name__}.{name}")
        if hasattr(module, "__path__"):
            module = import_module(f"{module.__name__}.command")
        command = typer.main.get_command(module.app)
        command.name = name
        return command


class Commands(TyperGroup):
    """The group of all commands. From the names of `commands` it also says "did you mean"."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - Typer's own
        super().__init__(**options)
        self.commands = CommandFiles()  # type: ignore[assignment]  # no command is added to it

    def list_commands(self, ctx: "Context") -> list[str]:
        """Return every command's name, without importing any."""
        del ctx
        return list(self.commands)


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
    """Run the command line and return its exit code; an error is one line, whatever it is."""
    return run_guarded(app, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(run())
