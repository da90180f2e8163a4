"""The families: a row for each variant that is compared with transformers.

What a row has besides its model is a file that is made of that model, opened, and compared with it
too. Every family has all of those that it can be read from: test_parity.py says so of one that
has not.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import gguf
from tests.support.formats import gguf_conversions as conversions
from tests.support.formats.gguf_models import Conversion
from tests.support.formats.meta_folders import write_meta_llama, write_meta_llama4
from tests.support.models.peers import config_class
from transformers import PreTrainedModel


@dataclass(frozen=True)
class Row:
    """`documented`: its row in docs/families.md. `kind`: its `{kind}ForCausalLM` in transformers.
    `fields`: of its configuration, those that are not `peers.TINY`'s. `gguf`: how llama.cpp writes
    it. `meta`: writes it as Meta does. `quantized`: whether folders that quantizers wrote are
    compared. `fuzzed`: whether each field of its config.json is tried with wrong values.
    `by_context`: whether what transformers computes depends on each call's length, so that only
    whole prefills of one length can be compared."""

    documented: str
    kind: str
    fields: dict[str, Any] = field(default_factory=dict)
    gguf: Conversion | None = None
    meta: Callable[[Path, PreTrainedModel], Path] | None = None
    quantized: bool = False
    fuzzed: bool = False
    by_context: bool = False

    @property
    def model_type(self) -> str:
        return config_class(self.kind).model_type


LLAMA3_ROPE = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32, "rope_theta": 10000.0,
}  # fmt: skip
YARN = {
    "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16,
    "rope_theta": 10000.0,
}  # fmt: skip
LATENT = {
    "num_key_value_heads": 4,
    "kv_lora_rank": 32,
    "q_lora_rank": 32,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 24,
}
MINICPM3 = {**LATENT, "scale_emb": 3, "scale_depth": 0.7, "dim_model_base": 24}
DYNAMIC = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
HUNYUAN_ROPE = {"rope_type": "dynamic", "factor": 1.0, "alpha": 20.0, "rope_theta": 10000.0}
HUNYUAN_VL_ROPE = HUNYUAN_ROPE | {"mrope_section": [2, 2, 2, 2]}
LONGROPE = {
    "rope_type": "longrope", "rope_theta": 10000.0, "partial_rotary_factor": 0.75,
    "short_factor": [1.0, 1.1, 1.3, 1.6, 2.0, 2.5], "long_factor": [2.0, 2.2, 2.6, 3.2, 4.0, 5.0],
    "original_max_position_embeddings": 32,
}  # fmt: skip
PHI2_ROPE = {"rope_type": "default", "rope_theta": 1000.0, "partial_rotary_factor": 0.25}
PHI4_MINI = {
    "rope_parameters": LONGROPE, "pad_token_id": 0, "original_max_position_embeddings": 32,
}  # fmt: skip
SLIDING = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}
MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
MROPE3 = MROPE | {"mrope_interleaved": True}
GEMMA = {"head_dim": 16, "query_pre_attn_scalar": 24, "sliding_window": 8, "num_hidden_layers": 4}
GEMMA4 = {
    "num_hidden_layers": 6, "head_dim": 16, "global_head_dim": 32, "sliding_window": 8,
    "hidden_size_per_layer_input": 32, "vocab_size_per_layer_input": 96, "pad_token_id": 0,
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 2,
}  # fmt: skip
GEMMA4_LARGER = {name: value for name, value in GEMMA4.items() if "per_layer" not in name} | {
    "attention_k_eq_v": True, "num_global_key_value_heads": 1,
    # More layers make rounding itself, in float32, as large as the tolerance on some processors.
    "num_hidden_layers": 3, "layer_types": GEMMA4["layer_types"][:3],
}  # fmt: skip
GEMMA3N = {
    "num_hidden_layers": 5, "head_dim": 16, "sliding_window": 8, "pad_token_id": 0,
    "hidden_size_per_layer_input": 32, "vocab_size_per_layer_input": 96, "laurel_rank": 32,
    "altup_num_inputs": 3, "num_kv_shared_layers": 2,
    "activation_sparsity_pattern": [0.95] + [0.0] * 4,
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention",
                    "sliding_attention", "full_attention"],
    "tie_word_embeddings": True,
}  # fmt: skip
LLAMA4 = {
    "num_hidden_layers": 4, "head_dim": 16, "intermediate_size": 64, "intermediate_size_mlp": 96,
    "num_local_experts": 4, "num_experts_per_tok": 1, "interleave_moe_layer_step": 2,
    "no_rope_layer_interval": 4, "attention_chunk_size": 128, "floor_scale": 8192,
    "pad_token_id": 0, "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
}  # fmt: skip
MINISTRAL3_ROPE = YARN | {
    "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.3,
}  # fmt: skip
OLMO3 = {
    "sliding_window": 8, "num_hidden_layers": 4,
    "rope_parameters": {"full_attention": YARN | {"attention_factor": 1.2},
                        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}},
}  # fmt: skip
# 2/3 of 150, up to a multiple of 64.
LFM2 = {
    "full_attn_idxs": [1], "intermediate_size": 150, "block_multiple_of": 64,
    "tie_word_embeddings": True,
}  # fmt: skip
LFM2_MOE = {
    "layer_types": ["conv", "full_attention", "conv"], "moe_intermediate_size": 64,
    "num_dense_layers": 1, "num_experts": 4, "num_experts_per_tok": 2, "tie_word_embeddings": True,
}  # fmt: skip
LFM3 = {
    "num_hidden_layers": 5, "num_attention_heads": 8, "head_dim": 16, "sliding_window": 8,
    "pad_token_id": 0, "tie_word_embeddings": True,
}  # fmt: skip
# Where the delta rule's sums nearly cancel, the norm after them enlarges what processors round
# otherwise, without bound at the usual epsilon.
QWEN3_5 = {
    "num_hidden_layers": 4, "head_dim": 32, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
    "linear_key_head_dim": 32, "linear_value_head_dim": 24, "rms_norm_eps": 0.1,
    "rope_parameters": MROPE3 | {"partial_rotary_factor": 0.25, "mrope_section": [2, 1, 1]},
}  # fmt: skip
QWEN2_MOE = {
    "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64,
    "shared_expert_intermediate_size": 32,
}  # fmt: skip
QWEN3_5_MOE = QWEN3_5 | QWEN2_MOE | {
    "num_hidden_layers": 3,
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
}  # fmt: skip
LARA_MINI = QWEN2_MOE | {
    "num_hidden_layers": 5, "head_dim": 32, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
    "linear_key_head_dim": 32, "linear_value_head_dim": 24, "rms_norm_eps": 0.1,
    "sliding_window": 8,
}  # fmt: skip
GRANITE_SWASH = {
    "sliding_window": 8, "embedding_multiplier": 3.0, "attention_multiplier": 0.2,
    "residual_multiplier": 0.4, "logits_scaling": 2.5,
}  # fmt: skip
QWEN3_NEXT = QWEN3_5_MOE | {
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0,
                        "partial_rotary_factor": 0.25},
}  # fmt: skip
COHERE = {"logit_scale": 0.3, "tie_word_embeddings": True}
GRANITE4 = {
    "embedding_multiplier": 3.0, "attention_multiplier": 0.2, "residual_multiplier": 0.4,
    "logits_scaling": 2.5, "num_local_experts": 0, "shared_intermediate_size": 128,
    "layer_types": ["full_attention"] * 3, "position_embedding_type": "rope",
}  # fmt: skip
MINICPM = {"scale_emb": 3, "scale_depth": 0.7, "dim_model_base": 24}
# Heads of 16 channels, in a context twice that of pretraining.
MINICPM4_ROPE = {name: LONGROPE[name] for name in LONGROPE if name != "partial_rotary_factor"} | {
    "short_factor": [1.0, 1.1, 1.3, 1.6, 2.0, 2.5, 3.0, 3.5],
    "long_factor": [2.0, 2.2, 2.6, 3.2, 4.0, 5.0, 6.0, 7.0],
}
# A group of B and C for four of eight heads each.
STATE_SPACES = {
    "mamba_n_heads": 8, "mamba_d_state": 32, "mamba_expand": 2, "mamba_n_groups": 2,
    "mamba_d_conv": 4,
}  # fmt: skip
GRANITE4_H = GRANITE4 | STATE_SPACES | {
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    "intermediate_size": 128, "position_embedding_type": "nope",
}  # fmt: skip
FALCON_H1 = STATE_SPACES | {
    "mamba_d_ssm": 128, "mamba_rms_norm": True, "mamba_norm_before_gate": False, "pad_token_id": 0,
    "embedding_multiplier": 3.0, "lm_head_multiplier": 0.3, "key_multiplier": 0.7,
    "attention_in_multiplier": 1.3, "attention_out_multiplier": 0.6, "ssm_in_multiplier": 0.8,
    "ssm_out_multiplier": 1.7, "mlp_multipliers": [1.4, 0.5],
    "ssm_multipliers": [0.6, 1.2, 0.7, 1.6, 1.1],
}  # fmt: skip
MAMBA2 = {"num_heads": 8, "head_dim": 16, "state_size": 32, "n_groups": 2, "pad_token_id": 0}
NEMOTRON_H = {
    "layers_block_type": [
        "linear_attention", "mlp", "linear_attention", "full_attention", "mlp", "full_attention"
    ],
    "head_dim": 16, "mamba_num_heads": 8, "mamba_head_dim": 16, "ssm_state_size": 32, "n_groups": 2,
    # Its class raises time steps to this one in prompts, not in steps.
    "time_step_min": 1e-30,
}  # fmt: skip
QWEN3_MOE = {
    "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64, "head_dim": 16,
    "norm_topk_prob": True,
}  # fmt: skip
MIXTURE = {"num_experts": 4, "num_experts_per_tok": 2, "intermediate_size": 64}
LOCAL_MIXTURE = {"num_local_experts": 4, "num_experts_per_tok": 2, "intermediate_size": 64}
GRANITE_MOE = LOCAL_MIXTURE | {
    "embedding_multiplier": 3.0, "attention_multiplier": 0.2, "residual_multiplier": 0.4,
    "logits_scaling": 2.5,
}  # fmt: skip
HUNYUAN_MOE = {
    "head_dim": 32, "num_experts": 4, "moe_topk": 2, "intermediate_size": 64,
    "rope_parameters": HUNYUAN_ROPE,
}  # fmt: skip
ERNIE_MOE = {
    "head_dim": 16, "moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 32,
    "num_key_value_heads": 2, "tie_word_embeddings": True,
}  # fmt: skip
DEEPSEEK_V2 = LATENT | {
    "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
    "first_k_dense_replace": 1, "routed_scaling_factor": 1.7,
}  # fmt: skip
AFMOE = {
    "head_dim": 16, "num_hidden_layers": 4, "sliding_window": 8, "mup_enabled": True,
    "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "route_scale": 1.7,
}  # fmt: skip
DEEPSEEK_OCR2 = {
    "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
    "mlp_layer_types": ["dense", "sparse", "sparse"], "routed_scaling_factor": 1.7,
}  # fmt: skip
# A GGUF does not say by what a Gemma scales its queries: its head dimension, but in the largest.
GEMMA_GGUF = {"query_pre_attn_scalar": 16}


def llama4_figures(config: Any) -> dict[str, Any]:
    return {
        "feed_forward_length": config.intermediate_size_mlp,
        "expert_feed_forward_length": config.intermediate_size,
        "expert_count": config.num_local_experts,
        "expert_used_count": config.num_experts_per_tok,
        "interleave_moe_layer_step": config.interleave_moe_layer_step,
    }


def experts_figures(config: Any) -> dict[str, Any]:
    return {
        "expert_count": getattr(config, "num_local_experts", None) or config.num_experts,
        "expert_used_count": config.num_experts_per_tok,
        "expert_feed_forward_length": getattr(config, "moe_intermediate_size", None),
    }


def granite_moe_figures(config: Any) -> dict[str, Any]:
    return experts_figures(config) | {
        "attention_scale": config.attention_multiplier,
        "embedding_scale": config.embedding_multiplier,
        "residual_scale": config.residual_multiplier,
        "logit_scale": config.logits_scaling,
    }


def phi3_figures(config: Any) -> dict[str, Any]:
    rope = config.rope_parameters
    head_dim = config.hidden_size // config.num_attention_heads
    return {
        "rope_dimension_count": int(rope["partial_rotary_factor"] * head_dim),
        "rope_scaling_orig_ctx_len": rope["original_max_position_embeddings"],
        "rope_scaling_attn_factors": rope.get("attention_factor") or 1.0,
    }


def phi2_figures(config: Any) -> dict[str, Any]:
    head_dim = config.hidden_size // config.num_attention_heads
    part = config.rope_parameters["partial_rotary_factor"]
    return {
        "rope_dimension_count": int(head_dim * part),
        "layer_norm_eps": config.layer_norm_eps,
        "layer_norm_rms_eps": None,
    }


def gpt2_figures(config: Any) -> dict[str, Any]:
    multi_query = getattr(config, "multi_query", False)
    return {
        "feed_forward_length": config.n_inner,
        "head_count_kv": 1 if multi_query else None,
        "layer_norm_eps": config.layer_norm_epsilon,
        "key_length": None,
        "value_length": None,
    }


def hunyuan_figures(config: Any) -> dict[str, Any]:
    """llama.cpp's converter writes the base as alpha stretches it."""
    rope, width = config.rope_parameters, config.head_dim
    return {"rope_freq_base": rope["rope_theta"] * rope["alpha"] ** (width / (width - 2))}


def hunyuan_moe_figures(config: Any) -> dict[str, Any]:
    return hunyuan_figures(config) | {
        "expert_count": config.num_experts,
        "expert_used_count": config.moe_topk,
        "expert_shared_count": 1,
        "expert_feed_forward_length": config.intermediate_size,
        "expert_shared_feed_forward_length": config.intermediate_size,
    }


def ernie_moe_figures(config: Any) -> dict[str, Any]:
    shared, width = config.moe_num_shared_experts, config.moe_intermediate_size
    return experts_figures(config) | {
        "interleave_moe_layer_step": config.moe_layer_interval,
        "leading_dense_block_count": config.moe_layer_start_index,
        "expert_shared_count": shared or None,
        "expert_shared_feed_forward_length": shared * width or None,
    }


def afmoe_figures(config: Any) -> dict[str, Any]:
    return (
        window(config)
        | experts_figures(config)
        | {
            "expert_shared_count": config.num_shared_experts,
            "leading_dense_block_count": config.num_dense_layers,
            "expert_weights_norm": True,
            "expert_weights_scale": config.route_scale,
        }
    )


def yarn_figures(config: Any) -> dict[str, Any]:
    rope = config.rope_parameters
    return {
        "rope_scaling_type": gguf.RopeScalingType.YARN,
        "rope_scaling_factor": rope["factor"],
        "rope_scaling_orig_ctx_len": rope["original_max_position_embeddings"],
    }


def ministral3_figures(config: Any) -> dict[str, Any]:
    rope = config.rope_parameters
    return yarn_figures(config) | {
        "rope_scaling_yarn_log_mul": rope["mscale_all_dim"],
        "attn_temperature_scale": rope["llama_4_scaling_beta"],
    }


def half_rotated(config: Any) -> dict[str, Any]:
    part = config.rope_parameters["partial_rotary_factor"]
    return {"rope_dimension_count": int(config.head_dim * part)}


def stablelm_figures(config: Any) -> dict[str, Any]:
    head_dim = config.hidden_size // config.num_attention_heads
    part = config.rope_parameters["partial_rotary_factor"]
    return {
        "rope_dimension_count": int(head_dim * part),
        "parallel_residual": config.use_parallel_residual,
        "layer_norm_eps": config.layer_norm_eps,
        "layer_norm_rms_eps": None,
    }


def cohere_figures(config: Any) -> dict[str, Any]:
    return {
        "logit_scale": config.logit_scale,
        "layer_norm_eps": config.layer_norm_eps,
        "layer_norm_rms_eps": None,
    }


def olmo3_rope(config: Any) -> dict[str, Any]:
    rope = config.rope_parameters["full_attention"]
    return {
        "rope_scaling_type": gguf.RopeScalingType.YARN,
        "rope_scaling_factor": rope["factor"],
        "rope_scaling_orig_ctx_len": rope["original_max_position_embeddings"],
        "rope_scaling_attn_factors": 1.2 / (1 + 0.1 * math.log(rope["factor"])),
    }


def lfm2_figures(config: Any) -> dict[str, Any]:
    attends = [kind == "full_attention" for kind in config.layer_types]
    return {
        "layer_norm_rms_eps": config.norm_eps,
        "head_count_kv": [config.num_key_value_heads * each for each in attends],
        "feed_forward_length": 128,
        "shortconv_l_cache": config.conv_L_cache,
    }


def lfm2_moe_figures(config: Any) -> dict[str, Any]:
    return (
        lfm2_figures(config)
        | experts_figures(config)
        | {
            "feed_forward_length": config.intermediate_size,
            "leading_dense_block_count": config.num_dense_layers,
            "expert_gating_func": gguf.ExpertGatingFuncType.SIGMOID,
        }
    )


def window(config: Any) -> dict[str, Any]:
    return {"sliding_window": config.sliding_window}


ROWS = {
    "llama": Row(
        "Llama 2, 3, SmolLM2", "Llama", quantized=True,
        gguf=Conversion("llama", interleaved=True), meta=write_meta_llama,
    ),
    "llama tied": Row("Llama 2, 3, SmolLM2", "Llama", {"tie_word_embeddings": True}),
    "llama wide heads": Row("Llama 2, 3, SmolLM2", "Llama", {"head_dim": 32}),
    "llama 3.1 rope": Row(
        "Llama 3.1, 3.2", "Llama", {"rope_parameters": LLAMA3_ROPE}, fuzzed=True
    ),
    "llama with every bias": Row(
        "Llama 2, 3, SmolLM2", "Llama", {"attention_bias": True, "mlp_bias": True}, quantized=True,
        gguf=Conversion("llama", interleaved=True),
    ),
    "llama, attention bias alone": Row("Llama 2, 3, SmolLM2", "Llama", {"attention_bias": True}),
    "llama, dynamic rope": Row("Llama 3.1, 3.2", "Llama", {"rope_parameters": DYNAMIC}),
    "llama, yarn as DeepSeek scales it": Row(
        "Llama 3.1, 3.2", "Llama",
        {"rope_parameters": YARN | {"mscale": 0.7, "mscale_all_dim": 1.2, "truncate": False}},
    ),
    "qwen2, yarn": Row(
        "Qwen 2.5", "Qwen2", {"rope_parameters": YARN}, fuzzed=True,
        gguf=Conversion("qwen2", figures=yarn_figures),
    ),
    "qwen3, yarn of all figures": Row(
        "Qwen 3 dense", "Qwen3",
        {"rope_parameters": YARN | {"attention_factor": 1.3, "beta_fast": 4.0, "beta_slow": 0.5}},
        fuzzed=True,
    ),
    "qwen2": Row("Qwen 2.5", "Qwen2", gguf=Conversion("qwen2"), quantized=True),
    "qwen2 with sliding layers": Row("Qwen 2.5", "Qwen2", SLIDING, fuzzed=True),
    "qwen3": Row(
        "Qwen 3 dense", "Qwen3", {"head_dim": 32}, quantized=True,
        gguf=Conversion("qwen3", fields={"head_dim": 16}),
    ),
    "qwen3 with sliding layers": Row("Qwen 3 dense", "Qwen3", SLIDING, fuzzed=True),
    "mistral": Row(
        "Mistral", "Mistral", {"sliding_window": 8}, quantized=True, fuzzed=True,
        gguf=Conversion("llama", interleaved=True, figures=window),
    ),
    "ministral": Row(
        "Ministral", "Ministral",
        {"sliding_window": 8, "head_dim": 16,
         "layer_types": ["full_attention", "sliding_attention", "sliding_attention"]},
        quantized=True, fuzzed=True,
    ),
    "ministral, every layer": Row(
        "Ministral", "Ministral", {"sliding_window": 8, "head_dim": 16}
    ),
    "phi4 mini": Row(
        "Phi-3, Phi-4-mini", "Phi3", PHI4_MINI | {"max_position_embeddings": 32},
        gguf=Conversion("phi3", figures=phi3_figures), quantized=True, fuzzed=True,
    ),
    "phi4 mini, long": Row(
        "Phi-3, Phi-4-mini", "Phi3", PHI4_MINI | {"max_position_embeddings": 64},
        fuzzed=True, by_context=True,
    ),
    "phi": Row(
        "Phi 1, 1.5, 2", "Phi", quantized=True, fuzzed=True,
        gguf=Conversion("phi2", figures=phi2_figures, tensors=conversions.phi2_tensors),
    ),
    "phi of the first files": Row(
        "Phi 1, 1.5, 2", "Phi", {"rope_parameters": PHI2_ROPE, "num_key_value_heads": None},
        gguf=Conversion(
            "phi2", figures=phi2_figures, tensors=conversions.phi2_tensors_of_the_first_files
        ),
    ),
    "iquest coder": Row(
        "IQuest-Coder", "IQuestCoder", {"head_dim": 32}, quantized=True, fuzzed=True
    ),
    "gpt j": Row(
        "GPT-J", "GPTJ", {"rotary_dim": 8, "n_inner": 96}, quantized=True, fuzzed=True
    ),
    "codegen": Row("CodeGen", "CodeGen", {"rotary_dim": 8}, quantized=True, fuzzed=True),
    "gpt2": Row(
        "GPT-2", "GPT2", {"n_inner": 96, "activation_function": "gelu"},
        quantized=True, fuzzed=True,
        gguf=Conversion(
            "gpt2", tensors=conversions.gpt2_tensors, figures=gpt2_figures,
            fields={"activation_function": "gelu_new", "tie_word_embeddings": True},
        ),
    ),
    "gpt2 without a scale of its scores": Row("GPT-2", "GPT2", {"scale_attn_weights": False}),
    "gpt neo": Row(
        "GPT-Neo, TinyStories", "GPTNeo",
        {"attention_types": [[["global", "local"], 1], [["local"], 1]], "window_size": 8},
        quantized=True, fuzzed=True,
    ),
    "gpt bigcode": Row(
        "StarCoder 1, SantaCoder", "GPTBigCode", {"n_inner": 96}, quantized=True, fuzzed=True,
        gguf=Conversion("starcoder", figures=gpt2_figures),
    ),
    "gpt bigcode, as many heads of keys": Row(
        "StarCoder 1, SantaCoder", "GPTBigCode", {"n_inner": 96, "multi_query": False}
    ),
    "opt": Row("OPT, Galactica", "OPT", {"ffn_dim": 96}, quantized=True, fuzzed=True),
    "galactica": Row(
        "OPT, Galactica", "OPT",
        {"ffn_dim": 96, "activation_function": "gelu", "enable_bias": False},
    ),
    "gpt neox": Row("GPT-NeoX, Pythia", "GPTNeoX", quantized=True, fuzzed=True),
    "gpt neox, one after the other": Row(
        "GPT-NeoX, Pythia", "GPTNeoX",
        {"use_parallel_residual": False, "attention_bias": False, "hidden_act": "gelu_new"},
    ),
    "gemma": Row(
        "Gemma 1", "Gemma", {"head_dim": 32, "tie_word_embeddings": True},
        quantized=True, fuzzed=True, gguf=Conversion("gemma", norms_plus_one=True),
    ),
    "gemma2": Row(
        "Gemma 2", "Gemma2", GEMMA | {"tie_word_embeddings": True}, quantized=True, fuzzed=True,
        gguf=Conversion(
            "gemma2", norms_plus_one=True, fields=GEMMA_GGUF,
            figures=lambda config: window(config) | {
                "attn_logit_softcapping": config.attn_logit_softcapping,
                "final_logit_softcapping": config.final_logit_softcapping,
            },
        ),
    ),
    "gemma3": Row(
        "Gemma 3 text", "Gemma3",
        GEMMA | {"layer_types": ["sliding_attention", "full_attention"] * 2},
        quantized=True, fuzzed=True,
        gguf=Conversion(
            "gemma3", norms_plus_one=True,
            fields=GEMMA_GGUF | {"num_hidden_layers": 6, "layer_types": None},
            figures=lambda config: window(config) | {
                "rope_freq_base_swa": config.rope_parameters["sliding_attention"]["rope_theta"],
            },
        ),
    ),
    "gemma3n": Row(
        "Gemma 3n text", "Gemma3n",
        GEMMA3N | {"vocab_size_per_layer_input": 64}, quantized=True, fuzzed=True,
        gguf=Conversion(
            "gemma3n", figures=conversions.gemma3n_figures, tensors=conversions.gemma3n_tensors,
            # Tokens without a row in the table for each layer get one of 0.
            fields={"vocab_size_per_layer_input": 96},
        ),
    ),
    "gemma3n, of four streams": Row(
        "Gemma 3n text", "Gemma3n",
        GEMMA3N | {"altup_num_inputs": 4, "num_kv_shared_layers": 0,
                   "activation_sparsity_pattern": [0.3, 0.3, 0.0, 0.0, 0.0]},
        gguf=Conversion(
            "gemma3n", figures=conversions.gemma3n_figures, tensors=conversions.gemma3n_tensors
        ),
    ),
    "gemma4": Row(
        "Gemma 4 text", "Gemma4",
        GEMMA4 | {"num_kv_shared_layers": 3, "use_double_wide_mlp": True,
                  "final_logit_softcapping": 30.0},
        quantized=True, fuzzed=True,
        gguf=Conversion(
            "gemma4", figures=conversions.gemma4_figures, tensors=conversions.gemma4_tensors
        ),
    ),
    "gemma4 without per-layer embeddings": Row(
        "Gemma 4 text", "Gemma4", GEMMA4 | {"hidden_size_per_layer_input": 0},
        gguf=Conversion(
            "gemma4", figures=conversions.gemma4_figures, tensors=conversions.gemma4_tensors,
            fields={"final_logit_softcapping": 20.0},
        ),
    ),
    "gemma4 with keys that are the values": Row(
        "Gemma 4 text", "Gemma4", GEMMA4_LARGER | {"hidden_size_per_layer_input": 0},
        quantized=True,
        gguf=Conversion(
            "gemma4", figures=conversions.gemma4_figures, tensors=conversions.gemma4_tensors,
            fields={"final_logit_softcapping": 20.0},
        ),
    ),
    "gemma4 without towers": Row(
        "Gemma 4 text without towers", "Gemma4Unified", GEMMA4_LARGER, quantized=True, fuzzed=True,
    ),
    "granite": Row(
        "Granite 3 dense", "Granite",
        {"embedding_multiplier": 3.0, "attention_multiplier": 0.2, "residual_multiplier": 0.4,
         "logits_scaling": 2.5},
        quantized=True, fuzzed=True,
        gguf=Conversion(
            "granite", interleaved=True,
            figures=lambda config: {
                "attention_scale": config.attention_multiplier,
                "embedding_scale": config.embedding_multiplier,
                "residual_scale": config.residual_multiplier,
                "logit_scale": config.logits_scaling,
            },
        ),
    ),
    "granite docling": Row(
        "Granite Docling text", "GraniteDocling",
        {"attention_multiplier": 0.2, "logits_scaling": 2.5, "pad_token_id": 0},
        quantized=True, fuzzed=True,
    ),
    "granite 4 vision": Row(
        "Granite 4 Vision text", "Granite4Vision",
        {"embedding_multiplier": 3.0, "attention_multiplier": 0.2, "residual_multiplier": 0.4,
         "logits_scaling": 2.5},
        quantized=True, fuzzed=True,
    ),
    "minicpm": Row(
        "MiniCPM 1, 2, 4", "MiniCPM", MINICPM, quantized=True, fuzzed=True,
        gguf=Conversion(
            "minicpm", interleaved=True,
            figures=lambda config: {
                "embedding_scale": config.scale_emb,
                "residual_scale": config.scale_depth / config.num_hidden_layers**0.5,
                "logit_scale": config.hidden_size / config.dim_model_base,
            },
        ),
    ),
    "minicpm, tied, for long texts": Row(
        "MiniCPM 1, 2, 4", "MiniCPM",
        MINICPM | {"tie_word_embeddings": True, "attention_bias": True,
                   "rope_parameters": MINICPM4_ROPE},
        by_context=True,
    ),
    "bitnet": Row(
        "BitNet b1.58", "BitNet", quantized=True, fuzzed=True,
        gguf=Conversion(
            "bitnet", tensors=conversions.bitnet_tensors, fields={"tie_word_embeddings": True},
            figures=lambda config: {"hidden_activation": config.hidden_act},
        ),
    ),
    "bitnet of the first models": Row(
        "BitNet b1.58", "BitNet",
        {"hidden_act": "silu", "attention_bias": True, "tie_word_embeddings": True},
        gguf=Conversion(
            "bitnet", tensors=conversions.bitnet_tensors, fields={"attention_bias": False}
        ),
    ),
    "qwen2 vl": Row(
        "Qwen 2 VL, 2.5 VL text", "Qwen2VL", {"rope_parameters": MROPE}, quantized=True,
        fuzzed=True, gguf=Conversion("qwen2vl"),
    ),
    "qwen2.5 vl with sliding layers": Row(
        "Qwen 2 VL, 2.5 VL text", "Qwen2_5_VL", SLIDING | {"rope_parameters": MROPE},
        quantized=True, fuzzed=True,
    ),
    "qwen3 vl": Row(
        "Qwen 3 VL text", "Qwen3VL", {"head_dim": 16, "rope_parameters": MROPE3}, quantized=True,
        fuzzed=True, gguf=Conversion("qwen3vl"),
    ),
    "qwen2.5 omni": Row(
        "Qwen 2.5 Omni text", "Qwen2_5OmniThinker", {"rope_parameters": MROPE}, quantized=True,
        fuzzed=True,
    ),
    "smollm3": Row(
        "SmolLM3", "SmolLM3",
        {"no_rope_layer_interval": 2, "num_hidden_layers": 4, "pad_token_id": 0},
        quantized=True, fuzzed=True,
        gguf=Conversion("smollm3", interleaved=True, fields={"no_rope_layer_interval": 4}),
    ),
    "seed oss": Row(
        "Seed-OSS", "SeedOss", {"head_dim": 16}, quantized=True, fuzzed=True,
        gguf=Conversion("seed_oss"),
    ),
    "seed oss, output and feed-forward bias": Row(
        "Seed-OSS", "SeedOss", {"head_dim": 16, "attention_out_bias": True, "mlp_bias": True}
    ),
    "ernie": Row(
        "ERNIE 4.5 dense", "Ernie4_5", {"head_dim": 32}, quantized=True, fuzzed=True,
        gguf=Conversion("ernie4_5"),
    ),
    "ernie with every bias": Row("ERNIE 4.5 dense", "Ernie4_5", {"head_dim": 16, "use_bias": True}),
    "paddleocr vl": Row(
        "PaddleOCR-VL text", "PaddleOCRVL", {"head_dim": 16, "rope_parameters": MROPE},
        quantized=True, fuzzed=True, gguf=Conversion("paddleocr"),
    ),
    "helium": Row("Helium", "Helium", {"head_dim": 16}, quantized=True, fuzzed=True),
    "ministral3": Row(
        "Ministral 3", "Ministral3", {"head_dim": 16, "rope_parameters": MINISTRAL3_ROPE},
        quantized=True, fuzzed=True,
        gguf=Conversion("mistral3", interleaved=True, figures=ministral3_figures),
    ),
    "glm": Row(
        "GLM-4 (2024)", "Glm", {"head_dim": 16, "attention_bias": True, "pad_token_id": 0},
        quantized=True, fuzzed=True, gguf=Conversion("chatglm", figures=half_rotated),
    ),
    "glm4": Row(
        "GLM-4 (2025)", "Glm4", {"head_dim": 16, "attention_bias": True, "pad_token_id": 0},
        quantized=True, fuzzed=True, gguf=Conversion("glm4", figures=half_rotated),
    ),
    "glm4v": Row(
        "GLM-4.1V text", "Glm4v",
        {"rope_parameters": MROPE | {"partial_rotary_factor": 0.5, "mrope_section": [2, 1, 1]}},
        quantized=True, fuzzed=True,
        gguf=Conversion(
            "glm4", figures=conversions.glm4v_figures, tensors=conversions.glm4v_tensors
        ),
    ),
    "glm ocr": Row(
        "GLM-OCR text", "GlmOcr", {"rope_parameters": MROPE}, quantized=True, fuzzed=True,
        gguf=Conversion(
            "glm4", figures=conversions.glm4v_figures, tensors=conversions.glm4v_tensors
        ),
    ),
    "olmo": Row(
        "OLMo 1", "Olmo", quantized=True, fuzzed=True,
        gguf=Conversion(
            "olmo", interleaved=True,
            figures=lambda config: {"layer_norm_eps": 1e-5, "layer_norm_rms_eps": None},
        ),
    ),
    "olmo2": Row(
        "OLMo 2", "Olmo2", quantized=True, fuzzed=True, gguf=Conversion("olmo2"),
    ),
    "olmo3": Row(
        "OLMo 3", "Olmo3", OLMO3, quantized=True, fuzzed=True,
        gguf=Conversion("olmo2", figures=lambda config: window(config) | olmo3_rope(config)),
    ),
    "exaone": Row(
        "EXAONE 3, 3.5, Deep", "Exaone", {"rope_parameters": LLAMA3_ROPE}, quantized=True,
        fuzzed=True,
    ),
    "exaone tied": Row(
        "EXAONE 3, 3.5, Deep", "Exaone", {"tie_word_embeddings": True}, gguf=Conversion("exaone"),
    ),
    "exaone4": Row(
        "EXAONE 4", "Exaone4", {"sliding_window": 8, "num_hidden_layers": 4},
        quantized=True, fuzzed=True, gguf=Conversion("exaone4", figures=window),
    ),
    "exaone4 without windows": Row(
        "EXAONE 4", "Exaone4",
        {"sliding_window": None, "layer_types": ["full_attention"] * 3},
        gguf=Conversion("exaone4"),
    ),
    "stablelm": Row(
        "StableLM 2", "StableLm", {"use_qkv_bias": True}, quantized=True, fuzzed=True,
        gguf=Conversion("stablelm", figures=stablelm_figures),
    ),
    "stablelm, in parallel": Row(
        "StableLM 2", "StableLm", {"use_parallel_residual": True},
        gguf=Conversion("stablelm", figures=stablelm_figures),
    ),
    "cohere": Row(
        "Command R", "Cohere", COHERE, quantized=True, fuzzed=True,
        gguf=Conversion("command-r", figures=cohere_figures),
    ),
    "cohere2": Row(
        "Command R7B", "Cohere2",
        COHERE | {"num_hidden_layers": 4, "sliding_window": 8, "attention_bias": True},
        quantized=True, fuzzed=True,
        gguf=Conversion(
            "cohere2", figures=lambda config: window(config) | cohere_figures(config)
        ),
    ),
    "arcee": Row(
        "Arcee AFM", "Arcee", quantized=True, fuzzed=True,
        gguf=Conversion("arcee", interleaved=True),
    ),
    "cosmos3 edge": Row(
        "Cosmos 3 Edge text", "Cosmos3Edge", {"head_dim": 16, "rope_parameters": MROPE},
        quantized=True, fuzzed=True,
    ),
    "cosmos3 edge with every bias": Row(
        "Cosmos 3 Edge text", "Cosmos3Edge",
        {"head_dim": 16, "rope_parameters": MROPE, "attention_bias": True, "mlp_bias": True},
    ),
    "nemotron": Row(
        "Nemotron, Minitron", "Nemotron", quantized=True, fuzzed=True,
        gguf=Conversion(
            "nemotron", norms_plus_one=True,
            figures=lambda config: half_rotated(config) | {
                "layer_norm_eps": config.norm_eps, "layer_norm_rms_eps": None,
            },
        ),
    ),
    "apertus": Row(
        "Apertus", "Apertus", {"rope_parameters": LLAMA3_ROPE, "pad_token_id": 0},
        quantized=True, fuzzed=True,
        gguf=Conversion(
            "apertus", tensors=conversions.apertus_tensors,
            figures_of_tensors=conversions.apertus_figures,
            fields={"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}},
        ),
    ),
    "youtu": Row(
        "Youtu-LLM", "Youtu", LATENT, quantized=True, fuzzed=True,
        gguf=Conversion(
            "deepseek2", tensors=conversions.deepseek2_tensors,
            figures=conversions.deepseek2_figures,
        ),
    ),
    "youtu halves": Row(
        "Youtu-LLM", "Youtu",
        {**LATENT, "rope_interleave": False, "q_lora_rank": None,
         "rope_parameters": {**YARN, "mscale": 0.7, "mscale_all_dim": 1.3}},
        quantized=True,
    ),
    "minicpm 3": Row(
        "MiniCPM 3", "MiniCPM3", MINICPM3, quantized=True, fuzzed=True,
        gguf=Conversion(
            "minicpm3", figures=conversions.minicpm3_figures,
            # llama.cpp fixes the multipliers, and takes values as wide as the embedding.
            fields={"scale_emb": 12, "scale_depth": 1.4, "dim_model_base": 256, "v_head_dim": 16},
        ),
    ),
    "minicpm 3 longrope": Row(
        "MiniCPM 3", "MiniCPM3",
        {**MINICPM3,
         "rope_parameters": {**LONGROPE, "partial_rotary_factor": 1.0,
                             "short_factor": [1.0, 1.1, 1.3, 1.6],
                             "long_factor": [2.0, 2.2, 2.6, 3.2]}},
        by_context=True,
    ),
    "granite 4": Row("Granite 4 dense", "GraniteMoeHybrid", GRANITE4, quantized=True, fuzzed=True),
    "granite 4 without rotation": Row(
        "Granite 4 dense", "GraniteMoeHybrid", GRANITE4 | {"position_embedding_type": None}
    ),
    "granite 4 h": Row(
        "Granite 4 H", "GraniteMoeHybrid", GRANITE4_H, quantized=True, fuzzed=True,
        gguf=Conversion(
            "granitehybrid", interleaved=True, figures=conversions.granite4_figures,
            tensors=conversions.granite4_tensors,
        ),
    ),
    "granite 4 h with every bias, one group": Row(
        "Granite 4 H", "GraniteMoeHybrid",
        GRANITE4_H | {"attention_bias": True, "mamba_proj_bias": True, "mamba_conv_bias": False,
                      "mamba_n_groups": 1, "mamba_d_conv": 3,
                      "position_embedding_type": "rope"},
    ),
    "granite 4 h, experts": Row(
        "Granite 4 H", "GraniteMoeHybrid", GRANITE4_H | LOCAL_MIXTURE, quantized=True, fuzzed=True,
        gguf=Conversion(
            "granitehybrid", interleaved=True, figures=conversions.granite4_figures,
            tensors=conversions.granite4_tensors,
        ),
    ),
    "bamba": Row(
        "Bamba", "Bamba", STATE_SPACES | {"attn_layer_indices": [1], "pad_token_id": 0},
        quantized=True, fuzzed=True,
    ),
    "bamba with every bias": Row(
        "Bamba", "Bamba",
        STATE_SPACES | {"attn_layer_indices": [0, 2], "pad_token_id": 0, "attention_bias": True,
                        "mlp_bias": True, "mamba_proj_bias": True, "mamba_conv_bias": False},
    ),
    "mamba 2": Row("Mamba-2", "Mamba2", MAMBA2, quantized=True, fuzzed=True),
    "mamba 2 with every bias, one group": Row(
        "Mamba-2", "Mamba2",
        MAMBA2 | {"n_groups": 1, "use_bias": True, "use_conv_bias": False, "conv_kernel": 3,
                  "tie_word_embeddings": True},
    ),
    "nemotron h": Row(
        "Nemotron-H, Nemotron Nano", "NemotronH", NEMOTRON_H, quantized=True, fuzzed=True,
        gguf=Conversion(
            "nemotron_h", figures=conversions.nemotron_h_figures,
            tensors=conversions.nemotron_h_tensors,
        ),
    ),
    "nemotron h with every bias, one group": Row(
        "Nemotron-H, Nemotron Nano", "NemotronH",
        NEMOTRON_H | {"mlp_bias": True, "use_bias": True, "n_groups": 1,
                      "use_conv_bias": False, "conv_kernel": 3, "tie_word_embeddings": True},
    ),
    "falcon h1": Row(
        "Falcon-H1", "FalconH1", FALCON_H1, quantized=True, fuzzed=True,
        gguf=Conversion(
            "falcon-h1", figures=conversions.state_space_figures,
            tensors=conversions.falcon_h1_tensors,
        ),
    ),
    "falcon h1 without norm": Row(
        "Falcon-H1", "FalconH1",
        FALCON_H1 | {"mamba_rms_norm": False, "mamba_n_groups": 1, "tie_word_embeddings": True},
        gguf=Conversion(
            "falcon-h1", figures=conversions.state_space_figures,
            tensors=conversions.falcon_h1_tensors,
            fields={"lm_head_multiplier": 3.0},  # of a tied table, which has one factor
        ),
    ),
    "falcon h1, norm before the gate, every bias": Row(
        "Falcon-H1", "FalconH1",
        FALCON_H1 | {"mamba_norm_before_gate": True, "attention_bias": True, "mlp_bias": True,
                     "mamba_proj_bias": True, "projectors_bias": True, "mamba_d_ssm": None},
    ),
    "mobilellm": Row("MobileLLM", "MobileLLM", {"share_embedding": True}, quantized=True),
    "mobilellm with an output layer": Row("MobileLLM", "MobileLLM", fuzzed=True),
    "internlm2": Row(
        "InternLM2, 2.5", "InternLM2", {"bias": False}, quantized=True, fuzzed=True,
        gguf=Conversion("internlm2", interleaved=True),
    ),
    "internlm2 with biases": Row("InternLM2, 2.5", "InternLM2"),
    "internlm3": Row("InternLM3", "InternLM3", {"head_dim": 16}, quantized=True, fuzzed=True),
    "internlm3 with every bias": Row(
        "InternLM3", "InternLM3", {"head_dim": 16, "attention_bias": True, "mlp_bias": True}
    ),
    "starcoder2": Row(
        "StarCoder2", "Starcoder2", quantized=True, fuzzed=True,
        gguf=Conversion(
            "starcoder2",
            figures=lambda config: {
                "layer_norm_eps": config.norm_epsilon, "layer_norm_rms_eps": None,
            },
        ),
    ),
    "starcoder2 with a window": Row(
        "StarCoder2", "Starcoder2", {"use_bias": False, "sliding_window": 8}
    ),
    "jais2": Row("Jais 2", "Jais2", quantized=True, fuzzed=True),
    "hyperclovax": Row(
        "HyperCLOVA X SEED Think", "HyperCLOVAX",
        {"embedding_multiplier": 3.0, "attention_multiplier": 0.2, "residual_multiplier": 0.4,
         "logits_scaling": 0.4},
        quantized=True, fuzzed=True,
    ),
    "hyperclovax without norms after": Row(
        "HyperCLOVA X SEED Think", "HyperCLOVAX", {"use_post_norm": False}
    ),
    "nanochat": Row("NanoChat", "NanoChat", quantized=True, fuzzed=True),
    "vaultgemma": Row("VaultGemma", "VaultGemma", GEMMA, quantized=True, fuzzed=True),
    "cwm": Row(
        "CWM", "Cwm", {"head_dim": 16, "sliding_window": 8, "num_hidden_layers": 5},
        quantized=True, fuzzed=True,
    ),
    "hunyuan": Row(
        "HunYuan dense", "HunYuanDenseV1", {"head_dim": 32, "rope_parameters": HUNYUAN_ROPE},
        quantized=True, fuzzed=True,
        gguf=Conversion("hunyuan-dense", figures=hunyuan_figures),
    ),
    "hunyuan without an alpha": Row("HunYuan dense", "HunYuanDenseV1", {"head_dim": 16}),
    "hunyuan vl": Row(
        "HunYuan VL, OCR text", "HunYuanVL",
        {"head_dim": 16, "rope_parameters": HUNYUAN_VL_ROPE}, quantized=True, fuzzed=True,
        gguf=Conversion(
            "hunyuan_vl",
            figures=lambda config: {
                "rope.scaling.alpha": config.rope_parameters["alpha"],
                "rope_dimension_sections": config.rope_parameters["mrope_section"],
            },
        ),
    ),
    "lfm2": Row(
        "LFM2, LFM2.5", "Lfm2", LFM2, quantized=True, fuzzed=True,
        gguf=Conversion("lfm2", figures=lfm2_figures),
    ),
    "lfm3": Row("LFM3", "Lfm3", LFM3, quantized=True, fuzzed=True),
    "lfm3 without gates, norms and windows": Row(
        "LFM3", "Lfm3",
        {"head_dim": 16, "pad_token_id": 0, "use_sandwich_norm": False, "use_attention_gate": False,
         "conv_L_cache": 3, "layer_types": ["conv", "full_attention", "conv"]},
    ),
    "lfm2, four taps, all of the feed-forward": Row(
        "LFM2, LFM2.5", "Lfm2",
        {"layer_types": ["conv", "conv", "full_attention"], "conv_L_cache": 4,
         "block_auto_adjust_ff_dim": False},
    ),
    "lfm2 moe": Row(
        "LFM2 MoE", "Lfm2Moe", LFM2_MOE, quantized=True, fuzzed=True,
        gguf=Conversion("lfm2moe", figures=lfm2_moe_figures),
    ),
    "lfm2 moe, without bias, scaled": Row(
        "LFM2 MoE", "Lfm2Moe",
        LFM2_MOE | {"use_expert_bias": False, "norm_topk_prob": False,
                    "routed_scaling_factor": 2.5, "num_dense_layers": 0},
    ),
    "qwen3.5": Row(
        "Qwen 3.5 dense", "Qwen3_5", QWEN3_5, quantized=True, fuzzed=True,
        gguf=Conversion(
            "qwen35", figures=conversions.qwen3_5_figures, tensors=conversions.qwen3_5_tensors
        ),
    ),
    "qwen3.5, layers as stated": Row(
        "Qwen 3.5 dense", "Qwen3_5",
        QWEN3_5 | {"layer_types": ["full_attention", "linear_attention", "linear_attention"],
                   "num_hidden_layers": 3, "linear_num_key_heads": 4, "linear_conv_kernel_dim": 3,
                   "linear_value_head_dim": 32, "tie_word_embeddings": True},
    ),
    "qwen3.5 moe": Row(
        "Qwen 3.5 MoE", "Qwen3_5Moe", QWEN3_5_MOE, quantized=True, fuzzed=True,
        gguf=Conversion(
            "qwen35moe", figures=conversions.qwen3_5_moe_figures,
            tensors=conversions.qwen3_5_tensors,
        ),
    ),
    "lara mini": Row(
        "Lara Mini", "LaraMini",
        LARA_MINI, quantized=True, fuzzed=True,
    ),
    "lara mini with biases": Row("Lara Mini", "LaraMini", LARA_MINI | {"attention_bias": True}),
    "qwen3 next": Row(
        "Qwen 3 Next", "Qwen3Next", QWEN3_NEXT, quantized=True, fuzzed=True,
        gguf=Conversion(
            "qwen3next", figures=conversions.qwen3_next_figures,
            tensors=conversions.qwen3_next_tensors,
        ),
    ),
    "qwen3 next, dense layers, not normalized": Row(
        "Qwen 3 Next", "Qwen3Next",
        QWEN3_NEXT | {"decoder_sparse_step": 2, "norm_topk_prob": False,
                      "linear_num_key_heads": 4},
        gguf=Conversion(
            "qwen3next", figures=conversions.qwen3_next_figures,
            tensors=partial(conversions.qwen3_next_tensors, legacy=True),
            fields={"decoder_sparse_step": 1, "norm_topk_prob": True},
        ),
    ),
    "qwen2 moe": Row(
        "Qwen 1.5, 2 MoE", "Qwen2Moe", QWEN2_MOE, quantized=True, fuzzed=True,
        gguf=Conversion("qwen2moe", figures=conversions.qwen2_moe_figures),
    ),
    "qwen2 moe, dense layers, normalized": Row(
        "Qwen 1.5, 2 MoE", "Qwen2Moe",
        QWEN2_MOE | {"decoder_sparse_step": 2, "norm_topk_prob": True, "num_hidden_layers": 4,
                     "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2},
    ),
    "qwen3 moe": Row(
        "Qwen 3 MoE", "Qwen3Moe", QWEN3_MOE, quantized=True, fuzzed=True,
        gguf=Conversion("qwen3moe", figures=experts_figures),
    ),
    "qwen3 moe, dense layers, not normalized": Row(
        "Qwen 3 MoE", "Qwen3Moe",
        QWEN3_MOE | {"decoder_sparse_step": 2, "norm_topk_prob": False, "sliding_window": 8,
                     "use_sliding_window": True, "mlp_only_layers": [0]},
    ),
    "olmoe": Row(
        "OLMoE", "Olmoe", MIXTURE, quantized=True, fuzzed=True,
        gguf=Conversion("olmoe", figures=experts_figures),
    ),
    "granite swash": Row(
        "Granite Swash", "GraniteSWA", GRANITE_SWASH | {"num_hidden_layers": 5},
        quantized=True, fuzzed=True,
    ),
    "granite swash, bases of both kinds": Row(
        "Granite Swash", "GraniteSWA",
        GRANITE_SWASH | {"layer_rope_theta": [50000.0, 100.0, 100.0]},
    ),
    "granite swash, scaled": Row(
        "Granite Swash", "GraniteSWA",
        GRANITE_SWASH | {
            "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0},
        },
    ),
    "granite swash without rotation": Row(
        "Granite Swash", "GraniteSWA", GRANITE_SWASH | {"layer_rope_theta": [0, 0, 0]}
    ),
    "granite swash moe": Row(
        "Granite Swash MoE", "GraniteMoeSWA",
        GRANITE_SWASH | {"num_local_experts": 4, "layer_rope_theta": [0, 100.0, 100.0]},
        quantized=True, fuzzed=True,
    ),
    "granite moe": Row(
        "Granite 3 MoE", "GraniteMoe", GRANITE_MOE, quantized=True, fuzzed=True,
        gguf=Conversion("granitemoe", interleaved=True, figures=granite_moe_figures),
    ),
    "granite moe shared": Row(
        "Granite MoE with a shared expert", "GraniteMoeShared",
        GRANITE_MOE | {"shared_intermediate_size": 32}, quantized=True, fuzzed=True,
        gguf=Conversion(
            "granitemoe", interleaved=True, tensors=conversions.granite_moe_shared_tensors,
            figures=lambda config: granite_moe_figures(config) | {
                "expert_shared_feed_forward_length": config.shared_intermediate_size,
            },
        ),
    ),
    "granite moe shared, without one": Row(
        "Granite MoE with a shared expert", "GraniteMoeShared", GRANITE_MOE
    ),
    "hunyuan moe": Row(
        "HunYuan MoE", "HunYuanMoEV1", HUNYUAN_MOE, quantized=True, fuzzed=True,
        gguf=Conversion("hunyuan-moe", figures=hunyuan_moe_figures),
    ),
    "ernie moe": Row(
        "ERNIE 4.5 MoE", "Ernie4_5_Moe", ERNIE_MOE, quantized=True, fuzzed=True,
        gguf=Conversion(
            "ernie4_5-moe", figures=ernie_moe_figures,
            tensors=conversions.ernie_moe_tensors,
        ),
    ),
    "ernie moe, every other layer, without shared experts": Row(
        "ERNIE 4.5 MoE", "Ernie4_5_Moe",
        ERNIE_MOE | {"moe_num_shared_experts": 0, "moe_layer_interval": 2, "num_hidden_layers": 4,
                     "moe_layer_start_index": 2, "moe_layer_end_index": 3},
        gguf=Conversion(
            "ernie4_5-moe", figures=ernie_moe_figures,
            tensors=conversions.ernie_moe_tensors,
        ),
    ),
    "deepseek v2": Row(
        "DeepSeek V2 Lite", "DeepseekV2", DEEPSEEK_V2 | {"q_lora_rank": None},
        quantized=True, fuzzed=True,
    ),
    "deepseek v2 with a latent vector of queries, yarn": Row(
        "DeepSeek V2 Lite", "DeepseekV2",
        DEEPSEEK_V2 | {"rope_parameters": YARN | {"mscale": 0.7, "mscale_all_dim": 1.3}},
    ),
    "deepseek v3": Row(
        "Moonlight", "DeepseekV3",
        DEEPSEEK_V2 | {"q_lora_rank": None, "n_group": 1, "topk_group": 1},
        quantized=True, fuzzed=True,
    ),
    "deepseek v3 in halves, not normalized": Row(
        "Moonlight", "DeepseekV3",
        DEEPSEEK_V2 | {"n_group": 1, "topk_group": 1, "rope_interleave": False,
                       "norm_topk_prob": False, "first_k_dense_replace": 0},
    ),
    "afmoe": Row(
        "AFMoE (Trinity)", "Afmoe", AFMOE, quantized=True, fuzzed=True,
        gguf=Conversion("afmoe", figures=afmoe_figures, tensors=conversions.expert_bias_tensors),
    ),
    "afmoe with biases, every other layer": Row(
        "AFMoE (Trinity)", "Afmoe",
        AFMOE | {"attention_bias": True, "mup_enabled": False, "global_attn_every_n_layers": 2,
                 "num_dense_layers": 0, "num_shared_experts": 1, "route_scale": 1.0},
    ),
    "deepseek ocr2": Row(
        "DeepSeek OCR 2 text", "DeepseekOcr2", DEEPSEEK_OCR2, quantized=True, fuzzed=True,
    ),
    "deepseek ocr2, experts in every layer": Row(
        "DeepSeek OCR 2 text", "DeepseekOcr2",
        DEEPSEEK_OCR2 | {"mlp_layer_types": ["sparse"] * 3, "routed_scaling_factor": 1.0,
                         "n_shared_experts": 1},
    ),
    "mixtral": Row(
        "Mixtral", "Mixtral", LOCAL_MIXTURE | {"sliding_window": 8}, quantized=True, fuzzed=True,
        gguf=Conversion(
            "llama", interleaved=True,
            figures=lambda config: window(config) | experts_figures(config),
        ),
    ),
    "llama4": Row(
        "Llama 4 text", "Llama4", LLAMA4, gguf=Conversion("llama4", figures=llama4_figures),
        quantized=True, fuzzed=True,
    ),
    "llama4, dense only": Row("Llama 4 text", "Llama4", LLAMA4 | {"moe_layers": []}),
    "llama4, dense, without chunks": Row(
        "Llama 4 text", "Llama4",
        LLAMA4 | {"moe_layers": [], "attention_chunk_size": 8,
                  "layer_types": ["full_attention"] * LLAMA4["num_hidden_layers"]},
    ),
    "llama4, two experts a token, in every layer": Row(
        "Llama 4 text", "Llama4",
        LLAMA4 | {"num_experts_per_tok": 2, "interleave_moe_layer_step": 1},
    ),
    "llama4, chunk boundary crossed": Row(
        "Llama 4 text", "Llama4", LLAMA4 | {"attention_chunk_size": 8}, meta=write_meta_llama4
    ),
    "llama4, temperature scale crossed": Row(
        "Llama 4 text", "Llama4", LLAMA4 | {"floor_scale": 4, "attn_scale": 0.3}
    ),
    "llama4, no QK norm, every layer rotated, tied": Row(
        "Llama 4 text", "Llama4",
        LLAMA4 | {
            "use_qk_norm": False, "no_rope_layers": [1, 1, 1, 1], "tie_word_embeddings": True,
        },
    ),
    "llama4, all at once": Row(
        "Llama 4 text", "Llama4",
        LLAMA4 | {"attention_chunk_size": 8, "floor_scale": 4, "num_experts_per_tok": 3},
    ),
}  # fmt: skip
