"""The arithmetic of the phone that a runtime of this machine should use."""

from dataclasses import replace

from quatrain.arithmetic import VULKAN_ARITHMETIC, VULKAN_WITHOUT_DOT_PRODUCTS, Arithmetic
from quatrain.targets.phones import find_device
from quatrain.targets.runtimes import (
    newest_release,
    quantizes_activations,
    require_release,
    sums_in_half,
)


def arithmetic_as_on(name: str | None) -> Arithmetic:
    """What `name`, GPU[@RELEASE] such as 'mali-g715@1.3', computes int4 linears in.

    A GPU or a phone; None is any GPU with integer dot products, and no release is the newest.
    Where no source says that a GPU lacks them it has them. Which kernel, and so which arithmetic,
    a release takes is in `runtimes.toml`: in 8da4w all known ones compute alike, and weight-only
    prompts of float16 are summed in it from 1.4 on. Raises `InputError` for a GPU or a release
    that is not known.
    """
    if name is None:
        return VULKAN_ARITHMETIC
    gpu, at, release = name.partition("@")
    profile, _ = find_device(gpu)
    if at:
        require_release(release)
    dot_products = profile.int8_dot_product is not False
    release = release if at else newest_release()
    quantizes = quantizes_activations("2..", dot_products, release)
    found = VULKAN_ARITHMETIC if quantizes else VULKAN_WITHOUT_DOT_PRODUCTS
    return replace(found, half_sums=sums_in_half(release), asked_for=True)
