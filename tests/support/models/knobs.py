"""Tiny models of ExecuTorch's `llama_transformer`, with the knobs of its ModelArgs turned."""

import json
from pathlib import Path

import torch
from executorch.examples.models.llama.llama_transformer import construct_transformer
from executorch.examples.models.llama.model_args import ModelArgs
from executorch.examples.models.llama.source_transformation.prune_vocab import (
    prune_input_vocab,
    prune_output_vocab,
)
from torchao.quantization.utils import per_token_dynamic_quant

TINY = {
    "dim": 64, "n_layers": 4, "n_heads": 4, "n_kv_heads": 2, "vocab_size": 96, "hidden_dim": 96,
    "norm_eps": 1e-5, "rope_theta": 10000.0, "max_seq_len": 64,
}  # fmt: skip
KEPT = {row: 3 * row + 1 for row in range(32)}
LONGROPE = {
    "use_hf_rope": True, "original_max_position_embeddings": 32,
    "rope_scaling_short_factor": [1.0] * 8, "rope_scaling_long_factor": [1.0 + i for i in range(8)],
}  # fmt: skip
# Each knob by itself; where one needs another, with it.
KNOBS = {
    "apply_embedding": {"apply_embedding": False},
    "apply_output": {"apply_output": False},
    "normalize_tok_embeddings": {"normalize_tok_embeddings": True},
    "qk_norm": {"use_qk_norm": True},
    "qk_norm_affine": {"use_qk_norm": True, "qk_norm_before_rope": True, "qk_norm_affine": False},
    "scale_query_by": {"use_qk_norm": True, "qk_norm_before_rope": True, "scale_query_by": 1.7},
    "longrope": {**LONGROPE, "rope_scaling_attention_factor": 1.2},
    "longrope by its contexts": {**LONGROPE, "max_position_embeddings": 512},
    "use_attn_o_gate": {"use_attn_o_gate": True},
    "use_attn_o_norm": {"use_attn_o_norm": True},
    "use_residual_gate": {"use_residual_gate": True},
    "use_ffn_learnable_scales": {"use_ffn_learnable_scales": True},
    "no_rope_layer_interval": {"no_rope_layer_interval": 2},
    "output_soft_cap_temp": {"output_soft_cap_temp": 1.5},
    "output_linear_intermediate_dim": {"output_linear_intermediate_dim": 64},
    "num_kv_shared_layers": {"num_kv_shared_layers": 2},
    "embedding_scale_factor": {"embedding_scale_factor": 3.0},
    "attention_multiplier": {"attention_multiplier": 0.4},
    "residual_multiplier": {"residual_multiplier": 0.6},
    "input_prune_map": {"input_prune_map": KEPT},
    "output_prune_map": {"output_prune_map": KEPT},
}
ALL = {
    name: value
    for fields in KNOBS.values()
    for name, value in fields.items()
    if name not in ("apply_embedding", "apply_output", "max_position_embeddings")
}
NOT_IN_STATE = ("k_cache", "v_cache", "conv_state", "recurrent_state", "mask", "freqs_")


def random_state(peer: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Random weights for `peer`, put into it: gates and norms far from where they start."""
    torch.manual_seed(0)
    for name, parameter in peer.named_parameters():
        if name.endswith(".gate"):
            torch.nn.init.normal_(parameter, 0.0, 0.3)
        elif parameter.dim() == 1:
            torch.nn.init.normal_(parameter, 1.0, 0.3)
        else:
            torch.nn.init.normal_(parameter, 0.0, parameter.shape[-1] ** -0.5)
    state = peer.eval().requires_grad_(False).state_dict()
    return {n: t.clone() for n, t in state.items() if not any(p in n for p in NOT_IN_STATE)}


class Peer:
    """ExecuTorch's model with `fields`, decoding step by step; `state`: its weights, in a
    checkpoint's names, random ones unless given.

    Of the names that its ModelArgs has and this version of the model does not implement, each is
    put on from outside, in a way that the model's own parts allow.
    """

    def __init__(self, fields: dict, state: dict[str, torch.Tensor] | None = None) -> None:
        self.fields = fields
        arguments = {**TINY, **fields}
        arguments["max_context_len"] = arguments["max_seq_len"]
        maps = {name: arguments.pop(name, None) for name in ("input_prune_map", "output_prune_map")}
        width = fields.get("output_linear_intermediate_dim")
        args = ModelArgs(**arguments, use_kv_cache=True, generate_full_logits=True)
        self.model = construct_transformer(args)
        if width:
            self.model.output = torch.nn.Linear(width, TINY["vocab_size"], bias=False)
            self.model.output_intermediate = torch.nn.Linear(TINY["dim"], width, bias=False)
        self.state = random_state(self.model) if state is None else state
        self.model.load_state_dict(self._inside(), strict=False)
        self._leave_out_rotations()
        self._multiply()
        if maps["input_prune_map"]:
            prune_input_vocab(self.model, maps["input_prune_map"])
        if maps["output_prune_map"]:
            prune_output_vocab(self.model, maps["output_prune_map"])
            self.model.output_prune_map = maps["output_prune_map"]
        if width:
            self.model.output = torch.nn.Sequential(
                self.model.output_intermediate, self.model.output
            )

    def _inside(self) -> dict[str, torch.Tensor]:
        """The state with what `fields` do to embeddings done to their table."""
        inside, fields = dict(self.state), self.fields
        table = inside.get("tok_embeddings.weight")
        if fields.get("normalize_tok_embeddings"):
            table = table / (table.pow(2).mean(-1, keepdim=True) + TINY["norm_eps"]).sqrt()
        if table is not None:
            inside["tok_embeddings.weight"] = table * fields.get("embedding_scale_factor", 1.0)
        return inside

    def _leave_out_rotations(self) -> None:
        interval = self.fields.get("no_rope_layer_interval")
        for index, layer in enumerate(self.model.layers):
            if interval and (index + 1) % interval == 0:
                layer.attention.rope = NoRope()

    def _multiply(self) -> None:
        """Attention scores by `attention_multiplier`, what joins the stream by the residual's."""
        attention = self.fields.get("attention_multiplier")
        residual = self.fields.get("residual_multiplier", 1.0)
        if not attention and residual == 1.0:
            return
        for layer in self.model.layers:
            if attention:
                queries = attention * layer.attention.head_dim**0.5
                layer.attention.rope = ScaledQueries(layer.attention.rope, queries)
            # After the norm of a branch, where it has one.
            for part in (
                getattr(layer, "post_attn_norm", layer.attention),
                getattr(layer, "post_ffn_norm", layer.feed_forward),
            ):
                part.register_forward_hook(
                    lambda _, __, result: (
                        (result[0] * residual, *result[1:])
                        if isinstance(result, tuple)
                        else result * residual
                    )
                )

    def round_activations(self, prompt: int | None = None) -> "Peer":
        """Round what each linear receives to int8 by token, as torchao's 8da4w linear does.

        `prompt`: of that many first tokens alone, and not before the output layer: as the Vulkan
        runtime does that reads these in one call and the others one by one.
        """

        def rounded(_module: torch.nn.Module, x: tuple) -> torch.Tensor | None:
            if prompt is not None and self.position >= prompt:
                return None
            return per_token_dynamic_quant(x[0], eps=torch.finfo(torch.float32).eps)

        for name, module in self.model.named_modules():
            if isinstance(module, torch.nn.Linear) and (prompt is None or "output" not in name):
                module.register_forward_pre_hook(rounded)
        return self

    @torch.no_grad()
    def steps(self, inputs: torch.Tensor, start: int = 0) -> torch.Tensor:
        """What it gives for each token of `inputs` [1, T] or [1, T, dim], one by one: [1, T, N].

        `start` is the position of the first.

        Decoding is where all its layers run: in a prefill it leaves out those that share keys.
        """
        results = []
        for index in range(inputs.shape[1]):
            self.position = start + index
            given = inputs[:, index : index + 1]
            options = {"input_pos": torch.tensor([self.position])}
            pair = {"h": given} if given.dim() == 3 else {"tokens": given}
            result = self.model(attn_options=options, **pair)
            results.append(result[0] if isinstance(result, tuple) else result)
        logits = torch.cat(results, dim=1)
        cap = self.fields.get("output_soft_cap_temp")
        if cap is None:
            return logits
        return torch.where(logits.isfinite(), cap * torch.tanh(logits / cap), logits)

    def forward(self, inputs: torch.Tensor, input_pos: torch.Tensor) -> torch.Tensor:
        """As a `Runner`: logits [1, N] of the last token, or hidden states [1, T, dim] of all."""
        results = self.steps(inputs, int(input_pos))
        return results[:, -1] if self.fields.get("apply_output", True) else results

    def reset(self) -> None:
        """There is nothing to forget: what lies past a position is masked."""


class NoRope(torch.nn.Module):
    def forward(self, q, k, cos, sin):
        return q, k


class ScaledQueries(torch.nn.Module):
    def __init__(self, rope, factor):
        super().__init__()
        self.rope, self.factor = rope, factor

    def forward(self, q, k, cos, sin):
        q, k = self.rope.forward(q, k, cos, sin)
        return q * self.factor, k


def write_meta_folder(folder: Path, fields: dict, state: dict[str, torch.Tensor]) -> Path:
    """A floating-point model as Meta releases one: consolidated.00.pth and params.json."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(state, folder / "consolidated.00.pth")
    (folder / "params.json").write_text(json.dumps({**TINY, **fields}))
    return folder
