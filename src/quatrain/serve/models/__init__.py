"""The models that are served, and the threads that write answers with them."""
