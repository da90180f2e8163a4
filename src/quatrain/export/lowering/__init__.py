"""What both backends lower with, and what they take from others' private code."""
