"""How alembic reaches the database: through a connection that `db.migrate` hands it."""

from alembic import context

from db import store  # noqa: F401 - it imports every model, the machine's and the bank's
from db.engine import PUBLIC
from db.migrate import VERSION_TABLE
from db.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=VERSION_TABLE,
    version_table_schema=context.config.attributes.get("schema", PUBLIC),
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
