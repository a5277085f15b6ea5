"""`make pictures`: the pages that the documents show can be drawn."""

import pytest

from db.engine import create_engine, create_sessions
from tests.pictures.books import open_october
from tests.pictures.reports import draw_reports

pytestmark = pytest.mark.slow
PNG = b"\x89PNG"


async def test_every_page_that_the_documents_show_is_drawn(new_database_url, tmp_path):
    engine = create_engine(new_database_url, pool_size=2, application_name="teller-pictures")
    sessions = create_sessions(engine)
    await draw_reports(sessions, await open_october(sessions), tmp_path)
    await engine.dispose()

    drawn = {path.name: path.read_bytes()[:4] for path in tmp_path.iterdir()}
    names = ["statement-1", "statement-2", "trial-balance-1", "volume-1", "volume-2"]
    assert drawn == {f"{name}.png": PNG for name in names}
