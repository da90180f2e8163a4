"""What there is to say of a release: as data, as HTML and as Markdown."""
