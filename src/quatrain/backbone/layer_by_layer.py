"""A backbone in floating point, computed layer by layer: the weights of one are in memory."""

from collections.abc import Callable, Mapping

import torch

from quatrain.backbone.block import Block
from quatrain.backbone.build import build_backbone, load_layer
from quatrain.backbone.config import BackboneConfig
from quatrain.backbone.layers.attention import Attention
from quatrain.backbone.layers.kv_cache import CachedAttention
from quatrain.backbone.layers.latent_attention import LatentAttention
from quatrain.backbone.layers.rope import Rope


class LayerByLayer:
    """Computes a `Backbone` for B texts of T tokens each, one layer at a time.

    `tensors`: a floating-point model by Meta name, read when indexed: a layer's tensors when that
    layer is loaded, which the caller releases before the next. `ends`: the backbone without its
    layers; with `hidden_output` it has no output layer.
    """

    def __init__(
        self,
        config: BackboneConfig,
        tensors: Mapping[str, torch.Tensor],
        hidden_output: bool = False,
    ) -> None:
        self.config, self.tensors = config, tensors
        of_ends = {name: tensors[name] for name in tensors if not name.startswith("layers.")}
        self.ends = build_backbone(config, of_ends, hidden_output=hidden_output, blocks=False)
        self._local_rope = Rope(config, local=True) if config.local_rope_theta else None
        self._shared: dict[int, CachedAttention] = {}

    def load(self, index: int, texts: int, length: int) -> Block:
        """Layer `index` with room for `texts` texts of `length` tokens."""
        block = load_layer(self.config, index, self.tensors)
        mixer = block.attention
        attend = mixer.attend if isinstance(mixer, Attention | LatentAttention) else None
        if attend is not None:
            attend.make_room(texts, length)
            if attend.shares_kv:
                self._shared[index] = attend
        return block

    def run(self, block: Block, x: torch.Tensor, own: torch.Tensor | None = None) -> torch.Tensor:
        """The result of the loaded `block` for the residual stream x [B, T, dim] and for its `own`
        input, one of the ends' `own_inputs`, if it has one."""
        rope = self._local_rope if block.rope == "local" else self.ends.rope
        assert rope is not None
        source = None if block.kv_source is None else self._shared[block.kv_source]
        return block(x, rope(0, x.shape[1]), 0, source, own)

    @torch.inference_mode()
    def hidden(
        self,
        tokens: torch.Tensor,
        advance: Callable[[float], None] = lambda fraction: None,
        prepare: Callable[[Block], None] = lambda block: None,
    ) -> torch.Tensor:
        """The normed hidden states [B, T, dim] of `tokens` int64 [B, T], each text from an empty
        context; `advance` is called with the completed fraction of the layers, `prepare` with each
        loaded layer before it runs."""
        x = self.ends.embed(tokens)
        own = self.ends.own_inputs(tokens, x)
        for index in range(self.config.n_layers):
            block = self.load(index, *tokens.shape)
            prepare(block)
            x = self.run(block, x, own[index] if own else None)
            advance((index + 1) / self.config.n_layers)
        return self.ends.normed(x)
