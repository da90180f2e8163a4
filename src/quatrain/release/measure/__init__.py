"""The measurements of a release: quality, layers, speed."""
