"""The triggers of known defects: where a program meets them, and what a GPU or a runtime does not
support."""
