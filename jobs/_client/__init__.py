"""The client: how other services enqueue jobs and follow them."""
