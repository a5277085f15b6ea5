"""Operating-system processes: one worker, or several under a supervisor."""
