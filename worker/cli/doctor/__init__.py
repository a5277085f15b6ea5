"""Looks at everything a worker depends on, and says what to do about what is wrong."""
