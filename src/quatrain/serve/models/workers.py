"""The workers of one server by the names of their models, some of them made when asked for."""

import asyncio
from collections.abc import Sequence

from quatrain.serve.errors import ApiError, too_busy
from quatrain.serve.limits import Limits
from quatrain.serve.metrics import Metrics
from quatrain.serve.models.served_models import ServedModel
from quatrain.serve.models.worker import Worker

# A client has the end of its answer before the thread that wrote it rests.
_TRIES, _PAUSE = 20, 0.05  # seconds


class Workers:
    """One worker for each of `models`; and for a model with an emulated defect, MODEL+DEFECT, once
    it is asked for. Of the latter so many are kept as the limits say, those that were asked last.

    Attributes:
        models: What was loaded at the start, by name.
    """

    def __init__(self, models: Sequence[ServedModel], limits: Limits, metrics: Metrics) -> None:
        self.models = {model.name: model for model in models}
        self._limits, self._metrics = limits, metrics
        self._workers = {model.name: self._worker(model) for model in models}
        self._variants: dict[str, Worker] = {}  # what was asked last is last
        self._changing = asyncio.Lock()

    def variants(self, model: ServedModel) -> dict[str, str]:
        """What can be asked for beside `model`: the name of each, and its defect."""
        offered = model.can_emulate if self._limits.variants else ()
        named = {f"{model.name}+{defect}": str(defect) for defect in offered}
        return {name: defect for name, defect in named.items() if name not in self.models}

    def find(self, name: str) -> tuple[ServedModel, str | None]:
        """The loaded model called `name`, and the defect to emulate, or None. Raises `ApiError` 404
        if there is none."""
        if name in self.models:
            return self.models[name], None
        for model in self.models.values():
            if defect := self.variants(model).get(name):
                return model, defect
        known = ", ".join(self.models)
        raise ApiError(
            404,
            f"model: there is no model {name!r}, expected one of {known}",
            "model",
            "model_not_found",
        )

    async def worker(self, name: str) -> Worker:
        """That of the model called `name`, loaded where it is not.

        Raises `ApiError` 404 if there is none, and 429 if no other one can be put away for it.
        """
        model, defect = self.find(name)
        if defect is None:
            return self._workers[name]
        async with self._changing:
            found = self._variants.pop(name, None)
            if found is None:
                await self._make_room()
                assert model.with_defect is not None
                found = self._worker(await asyncio.to_thread(model.with_defect, defect))
            self._variants[name] = found
        return found

    def stop(self) -> None:
        """End all threads."""
        for worker in (*self._workers.values(), *self._variants.values()):
            worker.stop()

    def _worker(self, model: ServedModel) -> Worker:
        return Worker(model, self._limits.queue, self._metrics)

    async def _make_room(self) -> None:
        """Unload the least recently used one if the limit is reached."""
        if len(self._variants) < self._limits.variants:
            return
        for _ in range(_TRIES):
            for name, worker in self._variants.items():
                if worker.stop(only_idle=True):
                    del self._variants[name]
                    return
            await asyncio.sleep(_PAUSE)
        raise too_busy(
            "all programs with emulated defects that this server loads at a time "
            f"(--max-variants {self._limits.variants}) are already busy",
            10,
        )
