"""The options of an export."""

from dataclasses import dataclass
from typing import Any, get_args

from quatrain.arithmetic import ActivationDtype, Backend, KvCache
from quatrain.errors import InputError, require_one_of
from quatrain.export.scheme_plan import SchemePlan
from quatrain.int4 import Scheme
from quatrain.targets import TargetChoice
from quatrain.targets.runtimes import needs_older_forms

DEFAULT_MAX_SEQ_LEN = 2048
LEAST_CONTEXT = 3  # of one of 2 torch.export makes a constant, or refuses it


@dataclass(frozen=True)
class ExportOptions:
    """The properties of the program to make.

    Attributes:
        scheme: The activation scheme of the int4 linears.
        backend: "vulkan" for GPUs, "xnnpack" for CPUs.
        activation_dtype: The data type in which the Vulkan delegate computes and stores, "fp32" or
            "fp16".
        max_seq_len: The context length in tokens, 3 or more; None means the model's own, at most
            2048.
        prefill_chunk_size: The most tokens in one call, 3 or more; ExecuTorch's runner reads a
            longer prompt in parts. None means the whole context, or the most that the layers can
            take.
        embedding_input: Take embeddings, floating-point [1, T, dim], instead of tokens.
        hidden_output: Return each token's final hidden state, floating-point [1, T, dim], instead
            of logits.
        kv_cache: "int8" stores keys and values in int8, with a scale and a zero point for each
            token and head; only on XNNPACK. None stores them in the activations' type.
        attention_sink: (sinks, window): each token attends only to the first `sinks` positions and
            the last `window`, and only these are kept; only on XNNPACK.
        allow_fallback: Compute a linear that no kernel supports as stored with dequantized weights,
            in floating point; otherwise such a linear is an error.
        target: From `quatrain.targets.choose_for_target`: applies its limits, and refuses a program
            that would fail there.
        scheme_plan: The scheme of each int4 linear on Vulkan; `scheme` is then 8da4w, or the plan's
            only scheme.
        examine: Whether to refuse a program that would fail on the target; False if the caller runs
            the doctor itself.

    Raises:
        InputError: A value is not one of these, or they contradict each other.
    """

    scheme: Scheme = Scheme.DYNAMIC_INT8
    backend: Backend = "vulkan"
    activation_dtype: ActivationDtype = "fp32"
    max_seq_len: int | None = None
    prefill_chunk_size: int | None = None
    embedding_input: bool = False
    hidden_output: bool = False
    kv_cache: KvCache | None = None
    attention_sink: tuple[int, int] | None = None
    allow_fallback: bool = False
    target: TargetChoice | None = None
    scheme_plan: SchemePlan | None = None
    examine: bool = True

    @property
    def compile_options(self) -> dict[str, Any]:
        """The options of ExecuTorch's Vulkan partitioner."""
        limits = self.target.partitioner if self.target else {}
        return {"force_fp16": self.activation_dtype == "fp16", **limits}

    @property
    def itemsize(self) -> int:
        """The number of bytes of the data type in which the program computes."""
        return 2 if self.activation_dtype == "fp16" else 4

    @property
    def older_forms(self) -> bool:
        """Whether to write the program in older operators, for the target's release."""
        return self.target is not None and needs_older_forms(self.target.runtime)

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("scheme", self.scheme, tuple(Scheme)),
            ("backend", self.backend, get_args(Backend)),
            ("activation dtype", self.activation_dtype, get_args(ActivationDtype)),
            ("kv_cache", self.kv_cache or "int8", get_args(KvCache)),
        ):
            require_one_of(name, value, allowed)
        for option, value in (
            ("--max-seq-len", self.max_seq_len),
            ("--prefill-chunk-size", self.prefill_chunk_size),
        ):
            if value is not None and value < LEAST_CONTEXT:
                raise InputError(f"{option} is {value}, expected {LEAST_CONTEXT} or more")
        self._check_backend()
        if self.kv_cache is not None and self.attention_sink is not None:
            raise InputError(
                f"--kv-cache {self.kv_cache} is for attention to the whole context, but "
                "--attention-sink keeps only a part of it; leave one of them out"
            )
        if self.scheme_plan is not None and self.scheme == Scheme.WEIGHT_ONLY:
            self._require_only(self.scheme_plan)

    def _check_backend(self) -> None:
        """Refuse what programs of the backend do not have."""
        if self.target is not None:
            check_gpu_backend(self.target.gpu, self.backend)
        if self.backend == "xnnpack" and self.activation_dtype == "fp16":
            raise InputError(
                "--activation-dtype fp16 is for the Vulkan backend; ExecuTorch's CPU attention "
                "and int4 kernels are built for fp32. Leave it out, or use --backend vulkan."
            )
        if self.backend == "vulkan" and self.kv_cache is not None:
            raise InputError(
                f"--kv-cache {self.kv_cache} is for --backend xnnpack: ExecuTorch's Vulkan "
                "delegate has no attention over an int8 cache. Leave it out; --activation-dtype "
                "fp16 halves the cache there."
            )
        if self.attention_sink is not None:
            check_attention_sink(self.attention_sink, self.backend)
        if self.backend == "xnnpack" and self.scheme_plan is not None:
            raise InputError(
                f"{self.scheme_plan.source}: --backend xnnpack has only 8da4w kernels, so there "
                "is nothing to plan; leave one of them out"
            )

    def _require_only(self, plan: SchemePlan) -> None:
        if plan.only_scheme != self.scheme:
            raise InputError(
                f"{plan.source}: has linears in 8da4w, but the scheme is {self.scheme}; leave the "
                "scheme out, or make all linears of the plan weight-only"
            )


def check_gpu_backend(target: str, backend: str) -> None:
    """Raise `InputError` if the target is the GPU `target` and `backend` is not Vulkan."""
    if backend != "vulkan":
        raise InputError(
            f"--target {target} is a GPU, for the Vulkan backend, but --backend is {backend}; "
            "leave one of them out"
        )


def check_attention_sink(asked: tuple[int, int], backend: str) -> None:
    """Raise `InputError` if a program of `backend` cannot have these (sinks, window)."""
    sinks, window = asked
    if sinks < 1 or window < 2:
        raise InputError(
            f"--attention-sink is {sinks},{window}, expected SINKS,WINDOW with at least 1 and 2, "
            "such as 4,512"
        )
    if backend == "vulkan":
        raise InputError(
            "--attention-sink is for --backend xnnpack: a Vulkan program can keep the last tokens "
            "of a window, but not the first tokens of the text. Leave it out."
        )
