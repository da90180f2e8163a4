"""Which operator produces a value and which ones read it: the edges of a graph."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable

from quatrain.program.vulkan.graph import VulkanGraph


class DefUse:
    """The producers and consumers of a graph's values, by operator index."""

    def __init__(self, graph: VulkanGraph):
        self.graph = graph
        self.producer: dict[int, int] = {}
        self.consumers: dict[int, list[int]] = defaultdict(list)
        for index, operator in enumerate(graph.operators):
            for value in graph.inputs_of(operator):
                self.consumers[value].append(index)
            for value in graph.outputs_of(operator):
                self.producer[value] = index

    def upstream(self, values: Iterable[int], stop: Callable[[int], bool]) -> list[int]:
        """The nearest operators, in order, that `values` come from and for which `stop` holds."""
        return self._search(
            [self.producer[value] for value in values if value in self.producer],
            lambda index: [
                self.producer[value]
                for value in self.graph.inputs_of(self.graph.operators[index])
                if value in self.producer
            ],
            stop,
        )

    def downstream(self, values: Iterable[int], stop: Callable[[int], bool]) -> list[int]:
        """The nearest operators, in order, that `values` go to and for which `stop` holds."""
        return self._search(
            [user for value in values for user in self.consumers.get(value, ())],
            lambda index: [
                user
                for value in self.graph.outputs_of(self.graph.operators[index])
                for user in self.consumers.get(value, ())
            ],
            stop,
        )

    def before(self, value: int, kinds: Collection[str]) -> int:
        """The value from which `value` was computed only by operators of `kinds`, such as changes
        of layout; each takes it as its first argument."""
        seen: set[int] = set()  # a damaged graph may run in a circle
        while (index := self.producer.get(value)) is not None and index not in seen:
            operator = self.graph.operators[index]
            if operator.kind not in kinds:
                break
            seen.add(index)
            value = operator.args[0]
        return value

    def _search(
        self,
        start: list[int],
        neighbours: Callable[[int], list[int]],
        stop: Callable[[int], bool],
    ) -> list[int]:
        seen: set[int] = set()
        found: set[int] = set()
        waiting = list(start)
        while waiting:
            index = waiting.pop()
            if index in seen:
                continue
            seen.add(index)
            if stop(index):
                found.add(index)
            else:
                waiting.extend(neighbours(index))
        return sorted(found)
