"""The composition root: settings in, a worker's options out."""

from worker.app.parts import *  # noqa: F403 - split next
