"""`python -m tests.pictures [FOLDER]`: draw the pictures of docs/ anew, or into a folder."""

import asyncio
import sys
import tempfile
from pathlib import Path

from db.engine import create_engine, create_sessions
from tests.pictures.books import open_october
from tests.pictures.reports import draw_reports
from worker.app import migrate_database
from worker.dev.servers import Stack

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"


async def draw(database_url, folder):
    """Draw everything into the folder."""
    engine = create_engine(database_url, pool_size=4, application_name="teller-pictures")
    await migrate_database(engine)
    sessions = create_sessions(engine)
    await draw_reports(sessions, await open_october(sessions), folder)
    await engine.dispose()


def main():
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else PICTURES
    folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as servers,
        Stack.start(Path(servers), durable=False) as stack,
    ):
        asyncio.run(draw(stack.database_url, folder))


if __name__ == "__main__":
    main()
