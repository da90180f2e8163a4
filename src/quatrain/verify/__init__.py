"""Proves programs: against their checkpoint, against known defects, and by what they write."""
