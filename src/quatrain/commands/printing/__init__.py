"""How commands print what they did, and how far they are."""
