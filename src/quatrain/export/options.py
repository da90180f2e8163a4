"""What an export is asked for."""

from dataclasses import dataclass
from typing import Any, Literal

from quatrain.errors import InputError
from quatrain.int4 import Scheme
from quatrain.targets import TargetChoice

Backend = Literal["vulkan", "xnnpack"]
ActivationDtype = Literal["fp32", "fp16"]

DEFAULT_MAX_SEQ_LEN = 2048


@dataclass(frozen=True)
class ExportOptions:
    """`max_seq_len` None: the model's own context, at most 2048 tokens.

    `target`, from `quatrain.targets.choose_for_target`, adds its limits, and refuses a program
    that would fail there. `allow_fallback` lets a linear without a kernel for its stored form
    run dequantized, in floating point; without it such a linear is an error.
    """

    scheme: Scheme = Scheme.DYNAMIC_INT8
    backend: Backend = "vulkan"
    activation_dtype: ActivationDtype = "fp32"
    max_seq_len: int | None = None
    embedding_input: bool = False
    hidden_output: bool = False
    allow_fallback: bool = False
    target: TargetChoice | None = None

    @property
    def compile_options(self) -> dict[str, Any]:
        """What ExecuTorch's Vulkan partitioner is asked for."""
        limits = self.target.partitioner if self.target else {}
        return {"force_fp16": self.activation_dtype == "fp16", **limits}

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("scheme", self.scheme, tuple(Scheme)),
            ("backend", self.backend, ("vulkan", "xnnpack")),
            ("activation dtype", self.activation_dtype, ("fp32", "fp16")),
        ):
            if value not in allowed:
                raise InputError(f"{name} is {value!r}, expected one of {', '.join(allowed)}")
        if self.backend != "vulkan" and self.target is not None:
            raise InputError(
                f"--target {self.target.gpu} is a GPU, for the Vulkan backend, but --backend "
                f"is {self.backend}; leave one of them out"
            )
        if self.backend == "xnnpack" and self.activation_dtype == "fp16":
            raise InputError(
                "--activation-dtype fp16 is for the Vulkan backend; ExecuTorch's CPU attention "
                "and int4 kernels are built for fp32. Leave it out, or use --backend vulkan."
            )
        if self.max_seq_len is not None and self.max_seq_len < 2:
            raise InputError(f"--max-seq-len is {self.max_seq_len}, expected 2 or more")
