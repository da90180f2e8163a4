"""Parts of a backbone as operators that both backends have."""
