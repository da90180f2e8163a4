"""The tasks of a release; their results are cached."""
