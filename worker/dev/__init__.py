"""For development: local servers, the demo, and fault injection."""
