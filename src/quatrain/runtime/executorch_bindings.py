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
        checked = _C.Verification.InternalConsistency
        self._program = _C._load_program(str(path), program_verification=checked)
        self._method = self._program.load_method(name)

    def execute(self, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        """Copies of its outputs. Raises RuntimeError if the inputs do not fit."""
        return self._method(inputs, clone_outputs=True)


def registered_backends() -> list[str]:
    """The names of the backends that the installed wheel has."""
    return _C._get_registered_backend_names()
