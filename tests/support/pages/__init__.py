"""Pages in a browser, and servers."""
