"""One delivery, from the call by arq to the outcome that is stored."""
