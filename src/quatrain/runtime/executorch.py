"""Runs a program on the ExecuTorch runtime of the installed wheel: the CPU backends."""

from pathlib import Path

import torch

from quatrain.errors import UNFIT, InputError
from quatrain.program import Program, open_program
from quatrain.program.external_constants import external_constants
from quatrain.program.kept_state import may_go_on
from quatrain.program.loaded_values import IN_A_PTD
from quatrain.quiet import native_output_held_back, quiet
from quatrain.runtime.calls.inputs import CallInputs, with_longest_call
from quatrain.runtime.calls.order import CallOrder
from quatrain.runtime.calls.token_ids import check_token_ids
from quatrain.text_files import require_utf8_name


class ExecutorchRunner:
    """Runs the method `forward` of a program whose delegates this wheel registers.

    Raises `InputError` if it does not register one, if the program cannot be loaded, or if the name
    of its file is not UTF-8.
    """

    def __init__(self, program: Program | Path | str) -> None:
        if not isinstance(program, Program):
            program = open_program(program)
        self.device = "executorch"
        self.path = program.path
        require_utf8_name(self.path, "the ExecuTorch runtime")
        self._inputs = CallInputs(program)
        self.metadata = with_longest_call(program.metadata, self._inputs.longest)
        self._order = CallOrder(program)
        self.rewinds = self._order.rewinds
        self._vocab_size = self.metadata.get("get_vocab_size")
        self.loads_again = may_go_on(program)
        self._is_new = True
        with native_output_held_back(), quiet():
            from quatrain.runtime.executorch_bindings import Method, registered_backends

            _require_backends(program, registered_backends())
            try:
                self._method = Method(self.path, "forward")
            except RuntimeError as error:
                missing = external_constants(program)
                why = "it is damaged, or made for another runtime: export it again"
                if missing:
                    why = f"constant {missing[0]} is not in it; {IN_A_PTD}"
                raise InputError(
                    f"{self.path}: the ExecuTorch runtime cannot load it: {error}; {why}"
                ) from error

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """One call, such as tokens int64 [1, T] and position int64 [1]; returns its output.

        If the program `loads_again`, a call at position 0 loads it again, because its state need
        not begin anew there: it does not in ExecuTorch's own LFM2.

        Raises `InputError` if a token is not in the program's vocabulary, or the call goes back in
        a program that cannot.
        """
        if self._vocab_size is not None and not inputs[0].is_floating_point():
            check_token_ids(inputs[0], self._vocab_size)
        given = self._inputs.given(inputs)
        try:
            with self._order.call(inputs):
                if self.loads_again and not self._is_new and int(inputs[1][0]) == 0:
                    self._method.load_again()
                self._is_new = False
                return self._method.execute(given)[0]
        except UNFIT as error:
            raise InputError(
                f"{self.path}: the ExecuTorch runtime cannot compute a call of inputs of shapes "
                f"{[list(value.shape) for value in given]}: {error}; it says why above"
            ) from error

    def reset(self) -> None:
        """Clear the context: a call at position 0 reads nothing of what was before."""
        self._order.reset()

    def goes_on(self, token: int) -> bool:
        """Whether a text that begins with `token` is computed otherwise after another one, as on a
        phone, whose runner does not load the program again. Clears the context."""
        if not self.loads_again:
            return False
        text, other = (
            self._inputs.given((torch.full((1, self._inputs.only or 1), each), torch.tensor([0])))
            for each in (token, 0 if token else 1)
        )
        self._method.load_again()
        first = self._method.execute(text)[0]
        self._method.load_again()
        self._method.execute(other)
        second = self._method.execute(text)[0]
        self._is_new = False
        self._order.reset()
        return not torch.equal(first, second)


def _require_backends(program: Program, registered: list[str]) -> None:
    needed = {delegate.backend for delegate in program.delegates}
    missing = sorted(needed - set(registered))
    if missing:
        otherwise = " It runs here with --device reference or gpu."
        raise InputError(
            f"{program.path}: needs {', '.join(missing)}, which the installed ExecuTorch does not "
            f"have (it has {', '.join(sorted(registered))})."
            + (otherwise if len(program.graphs) == len(program.delegates) == 1 else "")
        )
