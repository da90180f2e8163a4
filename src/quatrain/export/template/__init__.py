"""A program lowered once per architecture, whose constants are filled in."""
