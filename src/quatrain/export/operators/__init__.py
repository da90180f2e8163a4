"""Parts of a backbone as operators of both backends."""
