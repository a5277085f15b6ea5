"""The one settings object: frozen, read once, checked as a whole before the first job."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    RedisDsn,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict
from redis.asyncio import ConnectionPool

from db.engine import PUBLIC, TRANSACTION_TIMEOUT_MS
from db.url import check_url
from jobs._payload import validation_message
from jobs._wire import JOB_PREFIX, QUEUE
from worker.errors import StartupError

ENV_FILE: Final = ".env"
DUTY_CONNECTIONS: Final = 4
"""Connections beside the jobs': for the relay, the schedules, the heartbeat, and one spare."""


def _known_to_rediss_driver(url: RedisDsn) -> RedisDsn:
    try:
        pool: Any = ConnectionPool.from_url(str(url))
        pool.make_connection()  # an object with these parameters; it does not connect
    except (TypeError, ValueError) as error:
        raise ValueError(f"the driver does not take it: {error}") from None
    return url


def _name_of_a_schema(name: str) -> str:
    if re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", name) is None or name.startswith("pg_"):
        raise ValueError(
            "a schema's name here is lower-case letters, digits and _, and does not begin with pg_"
        )
    return name


def _reports_in_this_directory() -> str:
    return (Path.cwd() / "reports").as_uri()


class Settings(BaseSettings):
    """Everything that differs between two deployments, with its unit in its name.

    `DATABASE_URL` and `REDIS_URL` keep their customary names; the rest is `TELLER_…`.
    """

    model_config = SettingsConfigDict(
        env_prefix="TELLER_",
        env_file=ENV_FILE,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    database_url: Annotated[
        str, AfterValidator(check_url), Field(validation_alias="DATABASE_URL", repr=False)
    ]
    redis_url: Annotated[
        RedisDsn, AfterValidator(_known_to_rediss_driver), Field(validation_alias="REDIS_URL")
    ]

    database_schema: Annotated[
        str, AfterValidator(_name_of_a_schema), Field(validation_alias="TELLER_SCHEMA")
    ] = PUBLIC
    """The schema of DATABASE_URL where the tables are: one of their own where an application's
    tables share the database. Handlers find those in `public`."""
    concurrency: Annotated[int, Field(ge=1, le=1_000)] = 16
    """Jobs at a time in one process; the connection pool is sized to it."""
    queue_name: str = QUEUE
    drain_grace_s: Annotated[int, Field(ge=0, le=3_600)] = 25
    """How long a stopping worker lets running jobs finish; keep the orchestrator's grace longer."""
    result_kept_s: Annotated[int, Field(ge=0, le=604_800)] = 3_600
    """How long Redis keeps a result for callers that wait; PostgreSQL keeps it with the job."""
    poll_delay_s: Annotated[float, Field(gt=0, le=60)] = 0.5
    reports_url: str = Field(default_factory=_reports_in_this_directory)
    """Where reports go: a `file://` directory or an `s3://` bucket and prefix."""
    health_host: str = "127.0.0.1"
    """The address that the health server listens on; 0.0.0.0 in a container."""
    health_port: Annotated[int, Field(ge=0, le=65_535)] = 8_089
    """The port of `/livez`, `/readyz`, `/metrics` and `/status`; 0 turns them off."""
    loop_blocked_max_s: Annotated[float, Field(gt=0, le=3_600)] = 10.0
    """How long the event loop may be blocked before `/livez` fails."""
    webhook_private: Literal["refused", "allowed"] = "refused"
    """Whether webhooks may be delivered to addresses of private networks."""
    error_text: Literal["redacted", "full"] = "redacted"
    """Whether a job's errors keep the text of its exceptions without its payload's values, or as
    it is."""
    log_level: Annotated[str, Field(pattern="^(DEBUG|INFO|WARNING|ERROR)$")] = "INFO"

    @property
    def pool_size(self) -> int:
        """Connections that one process opens at most."""
        return self.concurrency + DUTY_CONNECTIONS

    @property
    def job_timeout(self) -> timedelta:
        """The queue's own limit for a job: above every policy's timeout, which comes first."""
        return timedelta(milliseconds=TRANSACTION_TIMEOUT_MS) + timedelta(minutes=15)

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.queue_name.startswith(JOB_PREFIX):
            raise ValueError("TELLER_QUEUE_NAME must not look like a job's own key")
        return self


def load_settings() -> Settings:
    """Return the settings of this process's environment.

    Raises:
        StartupError: something is missing or wrong; the message names it and says what to do.
    """
    try:
        return Settings()
    except ValidationError as error:
        raise StartupError(
            f"settings: {validation_message(error)}. "
            "Set DATABASE_URL and REDIS_URL (see .env.example), "
            "or run `python -m worker dev` to start both from wheels."
        ) from None
    except (OSError, UnicodeError) as error:
        raise StartupError(f"settings: {ENV_FILE} cannot be read: {error}") from None
