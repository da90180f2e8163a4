"""The matrices of single heads, which make keys and values of a latent vector."""

from dataclasses import dataclass

from quatrain.checkpoint.files.lazy_tensors import LazyTensors, StoredTensor
from quatrain.errors import InputError


@dataclass(frozen=True)
class Heads:
    """How many heads there are, and their channels: of keys without rotation and with, of values;
    `latent`: the width of the vector that these are made of."""

    count: int
    still: int
    turning: int
    values: int
    latent: int

    def params(self) -> dict[str, int]:
        """As fields of params.json."""
        return {
            "n_kv_heads": self.count,
            "head_dim": self.still + self.turning,
            "kv_lora_rank": self.latent,
            "qk_nope_head_dim": self.still,
            "qk_rope_head_dim": self.turning,
            "v_head_dim": self.values,
        }


def heads_apart(stored: LazyTensors, heads: Heads, module: str, source: str) -> LazyTensors:
    """`stored` with two tensors in place of each `...{module}.weight`, which has the rows of each
    head's keys and values below each other: with k_b in place of kv_b in its name [heads, still,
    latent], with v_b [heads, latent, values].

    Raises `InputError`, naming `source`, if one has another shape.
    """
    shape = (heads.count * (heads.still + heads.values), heads.latent)
    found: dict[str, StoredTensor] = {}
    for name, tensor in stored.stored.items():
        if not name.endswith(f"{module}.weight"):
            found[name] = tensor
            continue
        require_shape(tensor, shape, name, source)
        whole = tensor.changed(
            lambda rows: rows.unflatten(0, (heads.count, -1)),
            (heads.count, heads.still + heads.values, heads.latent),
        )
        k_b, v_b = (name.replace("kv_b", part) for part in ("k_b", "v_b"))
        found[k_b] = whole.changed(
            lambda each: each[:, : heads.still], (heads.count, heads.still, heads.latent)
        )
        found[v_b] = transposed(
            whole.changed(
                lambda each: each[:, heads.still :], (heads.count, heads.values, heads.latent)
            )
        )
    return LazyTensors(found)


def transposed(tensor: StoredTensor) -> StoredTensor:
    """[H, R, C] as [H, C, R]."""
    heads, rows, columns = tensor.shape
    return tensor.changed(lambda each: each.transpose(1, 2).contiguous(), (heads, columns, rows))


def require_shape(tensor: StoredTensor, shape: tuple[int, ...], name: str, source: str) -> None:
    """Raises `InputError` unless the tensor `name` of the file `source` has `shape`."""
    if tensor.shape != shape:
        raise InputError(f"{source}: {name} is {tensor}, expected {list(shape)}")
