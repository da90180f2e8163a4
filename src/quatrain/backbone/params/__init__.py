"""A `params.json`, checked, as the shape of a backbone."""
