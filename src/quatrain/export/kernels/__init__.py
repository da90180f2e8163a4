"""Which kernel each linear becomes, and that the program has it."""
