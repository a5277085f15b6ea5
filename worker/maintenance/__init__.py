"""Background duties: what a worker does between jobs, one file each."""
