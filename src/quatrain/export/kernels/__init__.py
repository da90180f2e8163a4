"""Assigns a kernel to each linear, and checks that the program has it."""
