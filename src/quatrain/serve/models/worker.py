"""One thread per model works off its requests one by one; what waits is bounded."""

import math
import threading
import time
from collections import deque

from quatrain.serve.errors import too_busy
from quatrain.serve.metrics import Metrics
from quatrain.serve.models.answer import Answer, ClientLeft
from quatrain.serve.models.served_models import ServedModel
from quatrain.serve.models.writer import Writer

_LONGEST_WAIT = 60  # seconds: the longest Retry-After


class Worker:
    """The thread of one model, and the requests that wait for it.

    Attributes:
        model: What it runs.
    """

    def __init__(self, model: ServedModel, max_queue: int, metrics: Metrics) -> None:
        self.model = model
        self._max_queue, self._metrics = max_queue, metrics
        self._writer = Writer(model, metrics)
        self._waiting: deque[Answer] = deque()
        self._changed = threading.Condition()
        self._busy = self._stopped = False
        self._seconds = 1.0  # that an answer takes: a mean in which the last ones count most
        metrics.queued.labels(model.name).set_function(lambda: len(self._waiting))
        metrics.running.labels(model.name).set_function(lambda: self._busy)
        threading.Thread(target=self._write_answers, name=model.name, daemon=True).start()

    def submit(self, answer: Answer) -> None:
        """Have `answer` written. Raises `ApiError` 429 if too many wait already, or the model
        was put away for another one meanwhile."""
        with self._changed:
            if self._stopped:
                raise too_busy(
                    f"{self.model.name}: was unloaded to make room for another program", 1
                )
            waiting = len(self._waiting) + self._busy
            if waiting > self._max_queue:
                seconds = min(math.ceil(self._seconds * waiting), _LONGEST_WAIT)
                said = f"{self.model.name}: {len(self._waiting)} requests are already waiting"
                raise too_busy(said, seconds)
            self._waiting.append(answer)
            self._changed.notify()

    def cancel(self, answer: Answer) -> None:
        """Write no more of `answer`, whose client has left, and let it hold no place."""
        with self._changed:
            if answer in self._waiting:
                self._waiting.remove(answer)
                self._metrics.cancelled.labels(self.model.name).inc()
        answer.cancelled.set()
        answer.put(ClientLeft())

    def stop(self, only_idle: bool = False) -> bool:
        """End the thread after the answer that it writes; where `only_idle`, not if there is one.
        Says whether it ends."""
        with self._changed:
            if only_idle and (self._busy or self._waiting):
                return False
            self._stopped = True
            self._changed.notify()
        for gauge in (self._metrics.queued, self._metrics.running):
            gauge.remove(self.model.name)  # each holds this worker, and so the model
        return True

    def _write_answers(self) -> None:
        while answer := self._next():
            start = time.perf_counter()
            self._writer.write(answer)
            self._seconds += 0.2 * (time.perf_counter() - start - self._seconds)

    def _next(self) -> Answer | None:
        with self._changed:
            self._busy = False
            self._changed.wait_for(lambda: self._waiting or self._stopped)
            if self._stopped:
                return None
            self._busy = True
            return self._waiting.popleft()
