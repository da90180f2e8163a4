"""From a model to the files that ship: made, proved, measured, and reported."""
