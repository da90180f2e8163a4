"""The report of a release: as data, as HTML and as Markdown."""
