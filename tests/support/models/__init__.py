"""The models of tests: tiny ones of every family, and real ones."""
