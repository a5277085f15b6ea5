"""Background duties: what every worker repeats beside its jobs, one file each."""
