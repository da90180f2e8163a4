"""Where in a program each known defect is triggered, and what a GPU or a runtime does not take."""
