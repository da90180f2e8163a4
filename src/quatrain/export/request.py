"""The request for an export, before anything is chosen for a target."""

from dataclasses import dataclass

from quatrain.arithmetic import ActivationDtype, Backend, KvCache
from quatrain.errors import InputError
from quatrain.export.options import ExportOptions, check_gpu_backend
from quatrain.export.scheme_plan import SchemePlan
from quatrain.int4 import Scheme
from quatrain.targets import TargetChoice
from quatrain.targets.phones import find_device
from quatrain.targets.runtimes import require_loadable


@dataclass(frozen=True)
class ExportRequest:
    """The properties of the program to make, and its target.

    Attributes:
        scheme: As in `ExportOptions`; None means the target's choice, or else 8da4w.
        backend: As in `ExportOptions`.
        activation_dtype: As in `ExportOptions`; None means the target's choice, or else "fp32".
        target: The id of a phone's GPU, such as mali-g715.
        runtime: The ExecuTorch release in the app, such as 1.3.
        scheme_plan: As in `ExportOptions`; excludes `scheme`.
        max_seq_len: As in `ExportOptions`, like the remaining fields.

    Raises:
        InputError: A value is not known, or they contradict each other.
    """

    scheme: Scheme | None = None
    backend: Backend = "vulkan"
    activation_dtype: ActivationDtype | None = None
    target: str | None = None
    runtime: str | None = None
    scheme_plan: SchemePlan | None = None
    max_seq_len: int | None = None
    prefill_chunk_size: int | None = None
    embedding_input: bool = False
    hidden_output: bool = False
    kv_cache: KvCache | None = None
    attention_sink: tuple[int, int] | None = None
    allow_fallback: bool = False

    def __post_init__(self) -> None:
        if self.target is not None:
            find_device(self.target)
            check_gpu_backend(self.target, self.backend)
        elif self.runtime is not None:
            remedy = "name the device"
            if self.backend != "vulkan":
                remedy = (
                    f"leave it out: --backend {self.backend} writes the same program for every "
                    "release"
                )
            raise InputError(f"--runtime has no effect without --target; {remedy}")
        if self.runtime is not None:
            require_loadable(self.runtime)
        if self.scheme is not None and self.scheme_plan is not None:
            raise InputError(
                f"{self.scheme_plan.source}: sets the scheme of each linear, but the scheme "
                f"{self.scheme} applies to all; leave one of them out"
            )
        self.options()

    @property
    def asked_scheme(self) -> Scheme | None:
        """The requested scheme, or the one in which a mixed program is written before some of its
        linears become weight-only; None leaves it to the target."""
        if self.scheme_plan is None:
            return self.scheme
        return self.scheme_plan.only_scheme or Scheme.DYNAMIC_INT8

    def options(self, choice: TargetChoice | None = None) -> ExportOptions:
        """The options of the export, given the target's `choice` if there is a target."""
        chosen = choice or self
        return ExportOptions(
            scheme=chosen.scheme or self.asked_scheme or Scheme.DYNAMIC_INT8,
            backend=self.backend,
            activation_dtype=chosen.activation_dtype or "fp32",
            target=choice,
            scheme_plan=self.scheme_plan,
            max_seq_len=self.max_seq_len,
            prefill_chunk_size=self.prefill_chunk_size,
            embedding_input=self.embedding_input,
            hidden_output=self.hidden_output,
            kv_cache=self.kv_cache,
            attention_sink=self.attention_sink,
            allow_fallback=self.allow_fallback,
        )
