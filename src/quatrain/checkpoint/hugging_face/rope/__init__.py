"""The fields of a config.json about rotary embeddings."""
