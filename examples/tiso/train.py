"""Trains the stand-in with torchao's quantization-aware training and writes its checkpoint.

The backbone takes embeddings and gives hidden states; the embedding table and the two heads
(the next code; whether speech is over) stay with the host program, as they do on a phone.
"""

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from task import CODEC_SIZE, INPUTS, KEPT_CODES, LENGTH, STOP, random_text, training_pairs
from torch import nn
from torchao.quantization.qat.linear import Int8DynActInt4WeightQATQuantizer

from quatrain.backbone.layers.kv_cache import visible
from quatrain.backbone.model import Backbone, Block
from quatrain.backbone.params.params import config_from_params
from quatrain.backbone.pruned_vocabulary import kept_rows

GROUP_SIZE = 32
BATCH = 16
SPAN = 2 * LENGTH + 1  # tokens of one training sequence
PARAMS = {
    "dim": 64, "n_layers": 3, "n_heads": 4, "n_kv_heads": 2, "hidden_dim": 128, "max_seq_len": 64,
    "vocab_size": CODEC_SIZE, "apply_embedding": False, "apply_output": False,
    "use_qk_norm": True, "qk_norm_affine": False, "use_attn_o_gate": True,
}  # fmt: skip


class Host(nn.Module):
    """What surrounds the backbone: the embeddings, and a head for codes and one for the end."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(INPUTS, dim)
        self.codes = nn.Linear(dim, CODEC_SIZE, bias=False)
        self.over = nn.Linear(dim, 1)


class TrainingAttention(nn.Module):
    """Attention without a cache over many sequences laid end to end, each seeing itself alone.

    Rotary embedding knows distances only, so it does not matter where a sequence lies.
    """

    def forward(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, start: int
    ) -> torch.Tensor:
        length = q.shape[1]
        mask = visible(start, length, length, ("chunk", SPAN))
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
        return attended.transpose(1, 2)


def train(folder: Path, steps: int, seed: int = 0) -> list[float]:
    """Train for `steps`, write the checkpoint and the host's part; returns each step's loss."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    config = config_from_params({**PARAMS, "max_seq_len": BATCH * SPAN}, "examples/tiso")
    backbone = Backbone(config, embedding_input=True, hidden_output=True)
    for layer in backbone.layers:
        assert isinstance(layer, Block)
        layer.attention.attend = TrainingAttention()  # type: ignore[assignment]
    quantizer = Int8DynActInt4WeightQATQuantizer(groupsize=GROUP_SIZE)
    backbone = quantizer.prepare(backbone.requires_grad_(True))
    host = Host(config.dim)
    parameters = [*backbone.parameters(), *host.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=4e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    losses = []
    for _ in range(steps):
        inputs, expected = training_pairs(random_text(BATCH, generator))
        hidden = backbone.hidden(host.embed(inputs).view(1, -1, config.dim), 0)
        speaking = hidden.view(BATCH, SPAN, -1)[:, LENGTH:]
        loss = F.cross_entropy(host.codes(speaking).flatten(0, 1), expected.flatten())
        over = (expected == STOP).float()
        loss = loss + F.binary_cross_entropy_with_logits(host.over(speaking)[..., 0], over)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
    _write(folder, quantizer.convert(backbone), host)
    return losses


def _write(folder: Path, backbone: nn.Module, host: Host) -> None:
    """The checkpoint as torchao's `convert` leaves it, and the host's tensors, pruned."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(backbone.state_dict(), folder / "model.safetensors")
    written = {**PARAMS, "quantization_args": {"group_size": GROUP_SIZE}}
    (folder / "params.json").write_text(json.dumps(written, indent=2))
    tensors = host.state_dict()
    rows = dict(enumerate(KEPT_CODES))
    tensors["codes.weight"] = kept_rows(tensors["codes.weight"], rows, CODEC_SIZE)
    (folder / "host").mkdir(exist_ok=True)
    save_file(tensors, folder / "host" / "host.safetensors")
