"""Checks programs: against their checkpoint, for known defects, and by the text that they write."""
