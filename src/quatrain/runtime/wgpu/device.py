"""Opens a GPU through WebGPU: pipelines, buffers, clear errors."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import numpy.typing as npt
import wgpu

from quatrain.errors import InputError, QuatrainError
from quatrain.multiples import up_to
from quatrain.runtime.wgpu.adapters import pick_adapter
from quatrain.runtime.wgpu.dispatches.dispatch import Dispatch, Traits

_STORAGE = wgpu.BufferUsage.STORAGE | wgpu.BufferUsage.COPY_SRC | wgpu.BufferUsage.COPY_DST
_STAGING = wgpu.BufferUsage.MAP_READ | wgpu.BufferUsage.COPY_DST
_FEATURES = ("shader-f16", "subgroup", "timestamp-query")
_LIMITS = (
    "max-buffer-size",
    "max-storage-buffer-binding-size",
    "max-storage-buffers-per-shader-stage",
    "max-compute-workgroup-storage-size",
)


def _reason(error: Exception) -> str:
    """The last line that is not part of a compiler's drawing: it says what is wrong."""
    lines = [line.strip() for line in str(error).splitlines()]
    return next((line for line in lines[::-1] if line and line[0].isalpha()), str(error))


@contextmanager
def explained(doing: str) -> Iterator[None]:
    """Turn a GPU's error while `doing` something into one with a suggestion."""
    try:
        yield
    except wgpu.GPUOutOfMemoryError as error:
        raise QuatrainError(
            f"the GPU is out of memory while {doing}; close other programs that use it, export "
            "with a smaller --max-seq-len, or use --device reference"
        ) from error
    except (wgpu.GPUError, RuntimeError) as error:
        lost = "lost" in str(error).lower()
        advice = (
            "the driver reset or the GPU hung: run `quatrain selftest` to see which kernel it "
            "fails on"
            if lost
            else "run `quatrain selftest`, update the driver"
        )
        raise QuatrainError(
            f"the GPU {'was lost' if lost else 'failed'} while {doing}: {_reason(error)}; "
            f"{advice}, or use --device reference"
        ) from error


class Gpu:
    """An open device, with its compiled pipelines. `traits` decides which kernels serve."""

    def __init__(self, adapter: str | None = None):
        self.info = pick_adapter(adapter)
        handle = self.info.handle
        with explained(f"opening {self.info.name}"):
            self.device = handle.request_device_sync(
                required_features=[f for f in _FEATURES if f in handle.features],
                required_limits={limit: handle.limits[limit] for limit in _LIMITS},
            )
        self._pipelines: dict[Any, Any] = {}
        self.traits = Traits(cpu=self.info.is_cpu, spread=self._subgroup_size() >= 8)

    @property
    def param_stride(self) -> int:
        """Bytes between two sets of params in a uniform buffer."""
        return max(16, self.device.limits["min-uniform-buffer-offset-alignment"])

    def pipeline(self, dispatch: Dispatch) -> Any:
        """The compiled pipeline of `dispatch`, from the cache where it was compiled before."""
        key = (dispatch.kernel, dispatch.constants)
        if key not in self._pipelines:
            with explained(f"compiling the kernel {dispatch.kernel}"):
                try:
                    self._pipelines[key] = self.compile(render(*key))
                except wgpu.GPUValidationError as error:
                    types = ", ".join(operand.dtype for operand in dispatch.operands)
                    raise InputError(
                        f"no kernel {dispatch.kernel} of {types}: {_reason(error)}; is the "
                        "program damaged? If it is not, use --device reference"
                    ) from error
        return self._pipelines[key]

    def compile(self, code: str) -> Any:
        """A compute pipeline from WGSL with the entry point `main`."""
        module = self.device.create_shader_module(code=code)
        stage = {"module": module, "entry_point": "main"}
        return self.device.create_compute_pipeline(layout="auto", compute=stage)

    def buffer(self, nbytes: int, what: str) -> Any:
        """A zeroed storage buffer of `nbytes`. `InputError` if it passes the GPU's limit."""
        self._check_size(nbytes, what)
        with explained(f"allocating {what}"):
            return self.device.create_buffer(size=nbytes, usage=_STORAGE)

    def upload(self, data: np.ndarray, what: str) -> Any:
        """A storage buffer holding `data`, written straight into the buffer's mapped memory."""
        source = data.reshape(-1).view(np.uint8)
        size = max(16, up_to(source.nbytes, 16))
        self._check_size(size, what)
        with explained(f"uploading {what}"):
            buffer = self.device.create_buffer(size=size, usage=_STORAGE, mapped_at_creation=True)
            if source.nbytes:
                buffer.write_mapped(source)
            buffer.unmap()
            return buffer

    def uniform(self, nbytes: int) -> Any:
        """A buffer for params."""
        usage = wgpu.BufferUsage.UNIFORM | wgpu.BufferUsage.COPY_DST
        return self.device.create_buffer(size=nbytes, usage=usage)

    def staging(self, nbytes: int) -> Any:
        """A buffer that results are copied to and read from."""
        return self.device.create_buffer(size=nbytes, usage=_STAGING)

    def bind_group(self, pipeline: Any, bindings: list[tuple[Any, int, int]]) -> Any:
        """A bind group of (buffer, offset, size) in order of binding."""
        entries = [
            {"binding": i, "resource": {"buffer": buffer, "offset": offset, "size": size}}
            for i, (buffer, offset, size) in enumerate(bindings)
        ]
        layout = pipeline.get_bind_group_layout(0)
        return self.device.create_bind_group(layout=layout, entries=entries)

    def read(self, staging: Any, dtype: npt.DTypeLike) -> np.ndarray:
        """The content of a staging buffer, once the work submitted before is done."""
        with explained("waiting for the GPU"):
            staging.map_sync("READ")
            data = np.frombuffer(staging.read_mapped(), dtype)
            staging.unmap()
        return data

    def _check_size(self, nbytes: int, what: str) -> None:
        limit = min(
            self.device.limits["max-buffer-size"],
            self.device.limits["max-storage-buffer-binding-size"],
        )
        if nbytes > limit:
            raise InputError(
                f"{self.info.name} binds at most {limit} bytes at once and {what} has {nbytes}; "
                "quantize the embedding (quatrain quantize --embedding int4), pick another "
                "adapter (quatrain devices), or use --device reference"
            )

    def _subgroup_size(self) -> int:
        """The subgroup size that a shader really gets, 1 without subgroups."""
        if not self.info.subgroups:
            return 1
        pipeline = self.compile(
            "@group(0) @binding(0) var<storage, read_write> size: array<u32>;"
            "@compute @workgroup_size(64) fn main(@builtin(subgroup_size) s: u32,"
            " @builtin(local_invocation_index) i: u32) { if (i == 0u) { size[0] = s; } }"
        )
        out, staging = self.buffer(16, "a probe"), self.staging(16)
        encoder = self.device.create_command_encoder()
        work = encoder.begin_compute_pass()
        work.set_pipeline(pipeline)
        work.set_bind_group(0, self.bind_group(pipeline, [(out, 0, 16)]))
        work.dispatch_workgroups(1)
        work.end()
        encoder.copy_buffer_to_buffer(out, 0, staging, 0, 16)
        self.device.queue.submit([encoder.finish()])
        return int(self.read(staging, "uint32")[0])


_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "kernels"),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(kernel: str, constants: tuple[tuple[str, Any], ...]) -> str:
    """The WGSL of kernels/`kernel`.wgsl with `constants` filled in."""
    code = _TEMPLATES.get_template(f"{kernel}.wgsl").render(dict(constants))
    return f"enable f16;\n{code}" if _has_half(constants) else code


def _has_half(value: Any) -> bool:
    """Whether a constant of a kernel, or one within it, is the type f16."""
    return value == "f16" or (isinstance(value, tuple) and any(map(_has_half, value)))
