"""Celery: `celery -A tests.bench.peer_programs.celery_noop worker --pool threads`.

Its own JSON, results ignored, acknowledged after the job ran as its guide advises for
idempotent tasks.
"""

import os

from celery import Celery  # type: ignore[import-not-found]  # in an environment of its own

from tests.bench.peer_programs.counted import count

app = Celery("bench", broker=os.environ["REDIS_URL"])
app.conf.update(
    task_acks_late=True, task_ignore_result=True, broker_connection_retry_on_startup=True
)


@app.task(name="noop")
def noop():
    count()


def fill(jobs):
    with app.producer_pool.acquire() as producer:
        for _ in range(jobs):
            noop.apply_async(producer=producer)
