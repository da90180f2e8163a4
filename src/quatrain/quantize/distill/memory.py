"""What a training needs, said before it begins."""

from dataclasses import replace
from math import prod

import torch

from quatrain.checkpoint.float_model import FloatModel
from quatrain.errors import InputError
from quatrain.quantize.distill.recipe import Recipe
from quatrain.stages import installed_memory_bytes

_OF_TORCH = 500e6  # itself, and what it keeps for products
_COPIES_OF_SCALES = 8  # first, factor, gradient, Adam's two, and what is computed from them
_BYTES_OF_A_LATENT = 24  # itself, gradients, Adam's two, and what is computed from them


def fitted_to_memory(
    recipe: Recipe, model: FloatModel, texts: int, length: int, device: torch.device
) -> Recipe:
    """`recipe`, with as many texts computed together as the memory of `device` holds about.

    Raises `InputError` if it cannot hold one.
    """
    there, whose = memory_of(device)
    while recipe.at_once > 1 and _needed_bytes(recipe, model, texts, length, device) > there:
        recipe = replace(recipe, at_once=recipe.at_once // 2)
    needed = _needed_bytes(recipe, model, texts, length, device)
    if needed > there:
        raise InputError(
            f"{model.source}: --method distill trains the whole model at once, which needs about "
            f"{needed / 1e9:.0f} GB of memory, and this {whose} has {there / 1e9:.0f}; use "
            "--method gptq, which needs memory for one layer at a time"
        )
    return recipe


def _needed_bytes(
    recipe: Recipe, model: FloatModel, texts: int, length: int, device: torch.device
) -> float:
    """In bytes."""
    config = model.config
    weights = sum(prod(tensor.shape) for tensor in model.tensors.stored.values())
    table = config.vocab_size * config.dim
    # int8; the output layer in float32: the student's and its gradient, and the teacher's.
    held = weights + 12 * table
    held += 4 * _COPIES_OF_SCALES * weights // 32
    if recipe.integer_rate:
        held += _BYTES_OF_A_LATENT * weights
    # Of each token and layer what the gradient needs: some widths in float32 and bfloat16.
    of_token = config.n_layers * (30 * config.dim + 14 * max(config.hidden_dim, config.expert_dim))
    held += recipe.at_once * length * of_token
    if device.type == "cpu":
        held += 2 * texts * length * config.dim  # the teacher's hidden states
    return held + _OF_TORCH


def memory_of(device: torch.device) -> tuple[int, str]:
    """(the memory in bytes, the name of what has it)"""
    if device.type == "cpu":
        return installed_memory_bytes(), "machine"
    # Other programs, a display among them, hold some of it.
    return int(0.9 * torch.cuda.get_device_properties(device).total_memory), "GPU"
