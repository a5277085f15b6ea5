"""The schema's history. A script, once released, is never edited: a change is a new revision."""

from pathlib import Path
from typing import Any, Final

from alembic import context, op

from db.engine import PUBLIC

SCRIPTS: Final = Path(__file__).parent / "sql"


def run_script(name: str) -> None:
    """Run a file of SQL statements from `sql/` in the current migration's transaction.

    `{schema}` in it stands for the schema in which its tables are made.
    """
    connection = op.get_bind()
    schema = context.config.attributes.get("schema", PUBLIC)
    # SQLAlchemy opens the transaction with its first statement; the script must not run before it.
    connection.exec_driver_sql(f"SET LOCAL search_path TO {schema}")
    sql = (SCRIPTS / name).read_text(encoding="utf-8").replace("{schema}", schema)
    adapted: Any = connection.connection.dbapi_connection
    # Several statements at once go by the simple protocol, which the adapter itself does not speak.
    adapted.run_async(lambda driver: driver.execute(sql))
