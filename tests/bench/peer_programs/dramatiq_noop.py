"""Dramatiq: `dramatiq tests.bench.peer_programs.dramatiq_noop --processes 1 --threads 64`.

Its own JSON and middleware, no results, acknowledged after the job ran.
"""

import os

import dramatiq  # type: ignore[import-not-found]  # in an environment of its own
from dramatiq.brokers.redis import RedisBroker  # type: ignore[import-not-found]  # likewise

from tests.bench.peer_programs.counted import count

dramatiq.set_broker(RedisBroker(url=os.environ["REDIS_URL"]))


@dramatiq.actor
def noop():
    count()


def fill(jobs):
    for _ in range(jobs):
        noop.send()
