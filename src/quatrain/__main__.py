"""`python -m quatrain`."""

from quatrain.cli import main

main()
