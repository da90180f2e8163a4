"""The parts of a block, and of the backbone around its blocks."""
