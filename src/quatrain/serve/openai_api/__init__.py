"""OpenAI's API: what a request may hold, what each address answers, and in which shape."""
