"""Enqueueing a file of JSON lines: any size, constant memory, safe to run twice."""
