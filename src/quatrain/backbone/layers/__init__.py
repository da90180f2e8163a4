"""What a block is made of, and the backbone around its blocks."""
