"""The operator's desk: what `worker jobs list|show|retry|cancel` does, without its command line."""
