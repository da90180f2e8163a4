"""What a method does outside of its delegates: instructions, memory and embedding tables."""
