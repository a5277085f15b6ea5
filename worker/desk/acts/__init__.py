"""What an operator may do to jobs: the desk and the command line do it by the same functions."""
