"""Options that several commands have, or that are too many for the file of one."""
