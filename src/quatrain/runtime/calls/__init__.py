"""What one call of a program may be given: tokens, and the positions they begin at."""
