"""The inputs of a call of a program: tokens and positions."""
