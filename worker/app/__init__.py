"""The composition root: settings in, a worker's options out. Nothing else builds anything.

`arq worker.app.WorkerSettings` finds its options here; so does `python -m worker run`. They are
built when they are asked for, so that importing this module reads no environment.
"""

from typing import Any

from worker.app.options import Options, create_worker
from worker.app.schema import migrate_database
from worker.settings import load_settings

__all__ = ["Options", "create_worker", "migrate_database"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a module's attribute can be anything
    if name == "WorkerSettings":
        return Options(load_settings())
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
