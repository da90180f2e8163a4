"""What a release is made of: tasks that are made once, here or elsewhere, and kept."""
