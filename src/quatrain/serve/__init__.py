"""Programs as an OpenAI-compatible HTTP server (`quatrain[serve]`); docs/serve.md describes it."""
