"""The demo: a small bank's busy minute, on real servers, with an audit at the end."""

from worker.dev.demo.play import play
from worker.dev.demo.summary import Summary, show

__all__ = ["Summary", "play", "show"]
