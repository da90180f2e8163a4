"""OpenAI's API: requests, endpoints and responses."""
