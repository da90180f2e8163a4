"""The inputs of linears that share one, in the floating-point and in the quantized model."""

from collections.abc import Callable
from functools import cached_property

import torch

from quatrain.quantize.methods.products import add_product, cholesky, product, solve
from quatrain.quantize.methods.second_order import SecondMoments
from quatrain.quantize.threads import torch_threads

_TOWARD_FLOAT = 0.5  # how much of the difference to the floating-point outputs is made good
_RIDGE = 0.2  # of H's mean diagonal, in that regression
_TOKENS_AT_ONCE = 2048


class LinearInputs:
    """`exact` and `seen` [..., K]: as the floating-point model has the input and as the quantized
    one does. `tokens`: how many there are. `weights` [rows, 1]: of each token's error in the sum.
    """

    def __init__(self, exact: torch.Tensor, seen: torch.Tensor, group_size: int) -> None:
        self.exact, self.seen = exact.flatten(0, -2), seen.flatten(0, -2)
        self.group_size = group_size
        # What a router sends elsewhere is a row of zeros.
        self.weights = self.seen.any(-1, keepdim=True).float()
        self.tokens = int(self.weights.sum())

    @cached_property
    def moments(self) -> torch.Tensor:
        """H = E[seen seen^T], [K, K]. Raises `ValueError` if that is not finite."""
        panels = self._mean_with_seen(lambda rows: self.seen[rows], symmetric=True)
        moments = panels.tril() + panels.tril(-1).T
        if not torch.isfinite(moments).all():
            raise ValueError("receives inputs that are not finite")
        return moments

    @cached_property
    def second_order(self) -> SecondMoments:
        return SecondMoments(self.moments, self.group_size)

    @cached_property
    def _missing(self) -> torch.Tensor:
        """E[(exact - seen) seen^T], [K, K]."""
        return self._mean_with_seen(_difference((self.exact, self.seen)))

    @cached_property
    def _factor(self) -> torch.Tensor:
        """The lower Cholesky factor of H + l mean(diag H) I, in float64."""
        ridged = self.moments.double()
        ridged.diagonal().add_(_RIDGE * float(ridged.diagonal().mean()))
        return cholesky(ridged)

    @cached_property
    def _inverse(self) -> torch.Tensor:
        """(H + l mean(diag H) I)^-1 in float64."""
        with torch_threads(2):  # on every machine, for the same bytes
            return torch.cholesky_inverse(self._factor)

    @cached_property
    def _regression(self) -> torch.Tensor:
        """What of exact - seen can be told from seen, [K, K]: its rows times seen."""
        return product(self._missing.double(), self._inverse).float()

    def toward_float(
        self, weight: torch.Tensor, missing: tuple[torch.Tensor, torch.Tensor] | None = None
    ) -> torch.Tensor:
        """The weight [N, K] whose outputs for the inputs `seen` are closer to those of `weight` for
        `exact`, corrected by the difference `missing`, [..., N]."""
        if len(weight) < weight.shape[1]:  # fewer rows to solve for than the inverse has
            change = solve(self._missing_results(weight, missing), self._factor)
        else:
            change = product(weight, self._regression)
            if missing is not None:
                lacking = self._mean_with_seen(_difference(missing))
                change += product(lacking.double(), self._inverse).float()
        return weight + _TOWARD_FLOAT * change

    def _missing_results(
        self, weight: torch.Tensor, missing: tuple[torch.Tensor, torch.Tensor] | None
    ) -> torch.Tensor:
        """E[(weight (exact - seen) + what `missing` differ by) seen^T], [N, K]."""
        if missing is None:
            return product(weight, self._missing)  # which linears of this input share
        inputs, results = _difference((self.exact, self.seen)), _difference(missing)
        return self._mean_with_seen(lambda rows: product(inputs(rows), weight.T) + results(rows))

    def _mean_with_seen(
        self, left: Callable[[slice], torch.Tensor], symmetric: bool = False
    ) -> torch.Tensor:
        """E[left seen^T] over the tokens, [M, K]; `left` gives some of its rows [rows, M]. If the
        sum is `symmetric`, most of what is above the diagonal is left out."""
        total: torch.Tensor | None = None
        for first in range(0, len(self.seen), _TOKENS_AT_ONCE):
            rows = slice(first, first + _TOKENS_AT_ONCE)
            some, seen = left(rows), self.seen[rows] * self.weights[rows]
            if total is None:
                total = torch.zeros(some.shape[1], seen.shape[1])
            add_product(total, some.T, seen, symmetric=symmetric)
        assert total is not None
        return total.div_(self.weights.sum())


def _difference(pair: tuple[torch.Tensor, torch.Tensor]) -> Callable[[slice], torch.Tensor]:
    """Some rows [rows, N] of what a pair [..., N] differs by."""
    left, right = (part.flatten(0, -2) for part in pair)
    return lambda rows: left[rows] - right[rows]
