"""The health server: probes, metrics and status over HTTP."""
