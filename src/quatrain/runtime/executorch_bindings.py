"""ExecuTorch's C++ runtime without its compiler.

`executorch.runtime`, which is the public name of all this, imports the compiler too, and
`custom_ops` torch's. That takes longer than all else before a program's first token.
"""

from pathlib import Path

import torch

from quatrain.executorch_wheel import changed

try:
    import executorch.extension.llm.custom_ops as custom_ops
    import executorch.kernels.quantized  # noqa: F401 - registers the quantized embedding
    from executorch.extension.pybindings import _C

    # Registers the attention kernels, and the recurrent ones.
    (_kernels,) = Path(next(iter(custom_ops.__path__))).glob("*custom_ops_aot_lib.*")
    torch.ops.load_library(_kernels)
except (ImportError, OSError, ValueError) as error:
    raise changed("executorch", "its C++ runtime", error, "to find it") from error


class Method:
    """A method of the program in the file `path`.

    Raises RuntimeError if the runtime cannot load it.
    """

    def __init__(self, path: Path, name: str) -> None:
        self._path, self._name = path, name
        self.load_again()

    def load_again(self) -> None:
        """Begin with the memory that the program begins with. Raises as above."""
        self._method = self._program = None  # ahead of others: there is never memory for two
        checked = _C.Verification.InternalConsistency
        # All methods that one of these loads have the same memory, as the last call left it.
        self._program = _C._load_program(str(self._path), program_verification=checked)
        self._method = self._program.load_method(self._name)

    def execute(self, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        """Copies of its outputs. Raises RuntimeError if the inputs do not fit."""
        assert self._method is not None
        return self._method(inputs, clone_outputs=True)


def registered_backends() -> list[str]:
    """The names of the backends that the installed wheel has."""
    return _C._get_registered_backend_names()
