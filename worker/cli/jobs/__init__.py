"""`jobs`: what an operator sees of jobs, and the two things an operator may change."""
