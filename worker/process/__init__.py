"""One worker process, and what keeps several of them running."""
