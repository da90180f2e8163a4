"""Makes the files to ship from a model: writes, verifies, measures and reports them."""
