"""The GPU adapters of this machine that WebGPU reaches, and what each offers."""

import functools
import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field, fields
from typing import Any

import wgpu
from wgpu.backends.wgpu_native.extras import set_instance_extras

from quatrain.errors import InputError
from quatrain.runtime.unavailable import RuntimeUnavailable


@dataclass(frozen=True)
class AdapterInfo:
    """An adapter as `quatrain devices` lists it. Sizes are bytes."""

    name: str
    kind: str  # DiscreteGPU, IntegratedGPU, CPU, ...
    backend: str  # Vulkan, Metal, D3D12
    driver: str
    fp16: bool
    subgroups: bool
    timestamps: bool
    max_buffer: int
    max_binding: int
    handle: Any = field(repr=False)

    @property
    def is_cpu(self) -> bool:
        """Whether the adapter computes on the CPU (llvmpipe, WARP)."""
        return self.kind == "CPU"

    def as_dict(self) -> dict[str, Any]:
        """What the adapter offers as plain data, ready for JSON; it is opened by its name."""
        names = [one.name for one in fields(self) if one.name != "handle"]
        return {name: getattr(self, name) for name in names}


@functools.cache
def list_adapters() -> tuple[AdapterInfo, ...]:
    """The adapters that can run a program, real GPUs first. OpenGL ones are left out."""
    # Without it the window system's library complains on standard error, window or not.
    os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.gettempdir())
    # An instance that already exists is used unchanged.
    with suppress(RuntimeError):
        set_instance_extras(backends=["Primary"])
    found = [
        AdapterInfo(
            name=adapter.info["device"],
            kind=adapter.info["adapter_type"],
            backend=adapter.info["backend_type"],
            driver=adapter.info["description"],
            fp16="shader-f16" in adapter.features,
            subgroups="subgroup" in adapter.features,
            timestamps="timestamp-query" in adapter.features,
            max_buffer=adapter.limits["max-buffer-size"],
            max_binding=adapter.limits["max-storage-buffer-binding-size"],
            handle=adapter,
        )
        for adapter in wgpu.gpu.enumerate_adapters_sync()
        if not adapter.info["backend_type"].startswith("OpenGL")
    ]
    order = ["DiscreteGPU", "IntegratedGPU", "VirtualGPU", "Unknown", "CPU"]
    return tuple(sorted(found, key=lambda a: order.index(a.kind) if a.kind in order else 3))


def pick_adapter(name: str | None = None) -> AdapterInfo:
    """The first adapter, or the first whose name or index is `name`.

    Raises `RuntimeUnavailable` if there is none at all, `InputError` if none is called so.
    """
    adapters = list_adapters()
    if not adapters:
        reason = "no GPU adapter was found"
        raise RuntimeUnavailable(
            f"{reason}: install a Vulkan driver (on Debian, "
            "`apt-get install mesa-vulkan-drivers` gives one that runs on the CPU), "
            "or use --device reference",
            reason,
        )
    for index, adapter in enumerate(adapters):
        if name is None or name == str(index) or name.lower() in adapter.name.lower():
            return adapter
    known = ", ".join(f"{i}: {adapter.name}" for i, adapter in enumerate(adapters))
    raise InputError(f"no GPU adapter is called {name!r}; there are: {known}")
