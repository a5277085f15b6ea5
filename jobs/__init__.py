"""What work exists: one file per job, light enough for any service to import."""
