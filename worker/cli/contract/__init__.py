"""`contract`: what callers may send, as a file for programs and pages for people."""
