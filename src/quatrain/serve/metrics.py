"""What a server counts, as Prometheus reads it. Each server counts for itself."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300)  # bounds of what is counted together


class Metrics:
    """The counters of one server, by model where nothing else is said.

    Attributes:
        requests: HTTP requests answered, by endpoint and status.
        prompt_tokens: Tokens of the prompts that were answered.
        cached_tokens: Those of them that were in the KV cache already.
        tokens: Tokens written.
        cancelled: Answers whose client left.
        running: Answers being written, 0 or 1.
        queued: Requests that wait.
        queue_seconds: From a request to the work on it.
        first_token_seconds: From a request to its first token.
        answer_seconds: From a request to the end of its answer.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "quatrain_requests", "HTTP requests answered", ["endpoint", "status"],
            registry=self._registry,
        )  # fmt: skip
        self.prompt_tokens = self._counter("prompt_tokens", "Tokens of prompts")
        self.cached_tokens = self._counter(
            "cached_prompt_tokens", "Prompt tokens reused from the cache"
        )
        self.tokens = self._counter("generated_tokens", "Tokens written")
        self.cancelled = self._counter("cancelled", "Answers whose client disconnected")
        self.running = self._gauge("running", "Answers being written")
        self.queued = self._gauge("queued", "Requests that wait")
        self.queue_seconds = self._histogram(
            "queue", "Seconds from a request to the start of the work on it"
        )
        self.first_token_seconds = self._histogram(
            "first_token", "Seconds from a request to its first token"
        )
        self.answer_seconds = self._histogram(
            "answer", "Seconds from a request to the end of its answer"
        )

    def text(self) -> bytes:
        """All of them, in Prometheus' text format."""
        return generate_latest(self._registry)

    def _counter(self, name: str, said: str) -> Counter:
        return Counter(f"quatrain_{name}", said, ["model"], registry=self._registry)

    def _gauge(self, name: str, said: str) -> Gauge:
        return Gauge(f"quatrain_{name}", said, ["model"], registry=self._registry)

    def _histogram(self, name: str, said: str) -> Histogram:
        return Histogram(
            f"quatrain_{name}_seconds", said, ["model"], buckets=_SECONDS, registry=self._registry
        )
