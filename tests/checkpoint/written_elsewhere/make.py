"""Makes linears.safetensors with the formats' own writers; not run by the tests.

The writers are torch modules inside packages that want CUDA, so only the file that packs is
loaded, from an unpacked archive each:

    pip download --no-deps auto-gptq==0.7.1 autoawq==0.2.9    # unpack both into DIR
    pip install --no-deps --target DIR compressed-tensors==0.20.0 loguru
    PYTHONPATH=DIR python make.py DIR
"""

import importlib.util
import sys
import types
from pathlib import Path

import torch
from safetensors.torch import save_file

ROWS, COLUMNS, GROUP = 64, 96, 32


def load(path: Path, name: str):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def example(symmetric: bool):
    """(weight [N, K] on the grid, scales [N, G], zeros [N, G]), float32 of float16 values."""
    generator = torch.Generator().manual_seed(int(symmetric))
    groups = COLUMNS // GROUP
    numbers = torch.randint(0, 16, (ROWS, groups, GROUP), generator=generator)
    scales = (torch.rand((ROWS, groups), generator=generator) * 0.1 + 0.01).half().float()
    zeros = torch.randint(1, 16, (ROWS, groups), generator=generator).float()
    if symmetric:
        zeros.fill_(8)
    weight = (numbers - zeros[..., None]) * scales[..., None]
    return weight.reshape(ROWS, COLUMNS), scales, zeros


def linear_of(weight: torch.Tensor, dtype: torch.dtype) -> torch.nn.Linear:
    linear = torch.nn.Linear(COLUMNS, ROWS, bias=False, dtype=dtype)
    linear.weight.data = weight.to(dtype)
    return linear


def gptq(folder: Path, weight, scales, zeros) -> dict[str, torch.Tensor]:
    path = next(folder.glob("**/auto_gptq/nn_modules/qlinear/qlinear_cuda_old.py"))
    layer = load(path, "auto_gptq_qlinear").QuantLinear(4, GROUP, COLUMNS, ROWS, bias=False)
    layer.pack(linear_of(weight, torch.float32), scales.clone(), zeros.clone(), None)
    state = layer.state_dict()
    return {name: state[name] for name in ("qweight", "qzeros", "scales", "g_idx")}


def awq(folder: Path, weight, scales, zeros) -> dict[str, torch.Tensor]:
    root = next(folder.glob("**/awq/modules/linear/gemm.py")).parents[2]
    for name in ("awq", "awq.utils", "awq.modules"):
        package = types.ModuleType(name)
        package.__path__ = [str(root.parent / name.replace(".", "/"))]
        sys.modules[name] = package
    sys.modules["awq.utils.module"] = types.SimpleNamespace(try_import=lambda _: (None, ""))
    sys.modules["awq.utils.utils"] = types.SimpleNamespace(get_best_device=lambda: "cpu")
    module = load(root / "modules/linear/gemm.py", "awq_gemm")
    layer = module.WQLinear_GEMM.from_linear(
        linear_of(weight, torch.float32), 4, GROUP, scales=scales.t(), zeros=zeros.t()
    )
    return {name: getattr(layer, name) for name in ("qweight", "qzeros", "scales")}


def compressed(folder: Path, weight, scales, zeros, symmetric) -> dict[str, torch.Tensor]:
    from compressed_tensors.compressors.pack_quantized.base import PackedQuantizationCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    arguments = QuantizationArgs(
        num_bits=4, type="int", strategy="group", group_size=GROUP, symmetric=symmetric
    )
    state = {"weight": weight, "weight_scale": scales, "weight_zero_point": (zeros - 8).char()}
    scheme = QuantizationScheme(targets=["Linear"], weights=arguments)
    return PackedQuantizationCompressor.compress(state, scheme)


def main(folder: Path) -> None:
    tensors = {}
    for symmetric, kind in ((True, "symmetric"), (False, "asymmetric")):
        weight, scales, zeros = example(symmetric)
        tensors[f"{kind}.weight"] = weight
        for method, parts in {
            "gptq": gptq(folder, weight, scales, zeros),
            "awq": awq(folder, weight, scales, zeros),
            "compressed-tensors": compressed(folder, weight, scales, zeros, symmetric),
        }.items():
            tensors |= {
                f"{method}.{kind}.{part}": tensor.contiguous() for part, tensor in parts.items()
            }
    save_file(tensors, Path(__file__).with_name("linears.safetensors"))
    for name, tensor in tensors.items():
        print(name, tensor.dtype, list(tensor.shape))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
