"""A worker's options, as arq reads them."""

from typing import TYPE_CHECKING, Any, Final

from arq.connections import RedisSettings

from jobs import registry
from jobs._queue import queue_key
from worker.app.parts import Parts
from worker.app.schema import check_timeouts
from worker.execution import serializer as wire
from worker.execution.arq_adapter import EXECUTOR, WORKER, TellerWorker, arq_functions
from worker.execution.delivery import QUEUE_NAMES
from worker.monitoring.logs import configure_logs, hide_arguments

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from arq.worker import Function

    from jobs import Job
    from worker.monitoring.events import Subscriber
    from worker.settings import Settings

ENGINE: Final = "teller_engine"
PARTS: Final = "teller_parts"

HEALTH_CHECK_INTERVAL_S: Final = 5


class Options:
    """A worker's options as arq reads them: every one is here, none is left to a default."""

    def __init__(
        self,
        settings: "Settings",
        subscribers: "Sequence[Subscriber]" = (),
        jobs: "Mapping[str, Job] | None" = None,
    ) -> None:
        self._settings = settings
        self._subscribers = subscribers
        self._kinds = kinds = registry() if jobs is None else jobs
        check_timeouts(kinds)
        self.functions: list[Function] = arq_functions(kinds)
        slots = {
            queue_key(name, settings.queue_name): count for name, count in settings.slots.items()
        }
        # arq's stock loop serves one queue, the first.
        self.queue_name, self.max_jobs = next(iter(slots.items()))
        self.other_queues = {key: n for key, n in slots.items() if key != self.queue_name}
        self.cron_jobs = None
        self.redis_settings = redis_settings(str(settings.redis_url))
        self.redis_pool = None
        self.burst = False
        self.on_startup = self._start
        self.on_shutdown = self._stop
        self.on_job_start = None
        self.on_job_end = None
        self.after_job_end = None
        self.handle_signals = True
        self.job_completion_wait = settings.drain_grace_s
        self.job_timeout = settings.job_timeout
        self.keep_result = settings.result_kept_s
        self.keep_result_forever = False  # arq 0.28 crashes on it, and PostgreSQL keeps results
        self.poll_delay = settings.poll_delay_s
        self.queue_read_limit = max(self.max_jobs * 20, 1_000)
        self.max_tries = 1_000_000  # attempts are counted in the job's row
        self.health_check_interval = HEALTH_CHECK_INTERVAL_S
        self.health_check_key = None
        names = dict(zip(slots, settings.slots, strict=True))
        self.ctx: dict[Any, Any] = {QUEUE_NAMES: {None: names[self.queue_name], **names}}
        self.retry_jobs = True
        self.allow_abort_jobs = True
        self.max_burst_jobs = -1
        self.job_serializer = wire.serialize
        self.job_deserializer = wire.JobReader(frozenset(kinds))
        self.expires_extra_ms = 7 * 24 * 3_600_000
        self.timezone = None
        self.log_results = False  # a result may hold what no log should

    async def _start(self, ctx: dict[Any, Any]) -> None:
        """Build what the functions need, once PostgreSQL answers and has this code's schema."""
        configure_logs(self._settings.log_level, self._settings.log_format)
        hide_arguments()
        parts = ctx[PARTS] = Parts(
            *(self._settings, self._kinds, ctx.get(WORKER), ctx["redis"], self._subscribers)
        )
        ctx[ENGINE] = parts.engine
        ctx[EXECUTOR] = await parts.open()

    async def _stop(self, ctx: dict[Any, Any]) -> None:
        parts: Parts | None = ctx.pop(PARTS, None)
        if parts is not None:  # else the start failed before it had any
            await parts.close()


def create_worker(
    settings: "Settings",
    *,
    burst: bool = False,
    handle_signals: bool = True,
    subscribers: "Sequence[Subscriber]" = (),
    jobs: "Mapping[str, Job] | None" = None,
) -> TellerWorker:
    """Return our loop with all options set; `run()` it, or await `async_run()`.

    Args:
        settings: this process's.
        burst: work off what is queued, then end.
        handle_signals: whether SIGTERM drains it; False where the caller owns the signals.
        subscribers: called with every event, beside the log.
        jobs: by kind, those that it runs; None: all that are registered.
    """
    options = vars(Options(settings, subscribers, jobs))
    # It works without Redis as well, so it does not wait for it to begin.
    options["redis_settings"].conn_retries = 1
    chosen = {name: option for name, option in options.items() if not name.startswith("_")}
    return TellerWorker(**chosen | {"burst": burst, "handle_signals": handle_signals})


def redis_settings(url: str) -> RedisSettings:
    """Return arq's connection options for a Redis URL."""
    settings = RedisSettings.from_dsn(url)
    settings.conn_timeout = 5
    settings.conn_retries = 10
    settings.conn_retry_delay = 1
    return settings
