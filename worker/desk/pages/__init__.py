"""The pages, one file for each that has something of its own to read."""
