"""The arithmetic of the phone that a runtime here is to compute as."""

from quatrain.arithmetic import VULKAN_ARITHMETIC, VULKAN_WITHOUT_DOT_PRODUCTS, Arithmetic
from quatrain.targets.phones import find_device
from quatrain.targets.runtimes import require_release


def arithmetic_as_on(name: str | None) -> Arithmetic:
    """What `name`, GPU[@RELEASE] such as 'mali-g715@1.3', computes 8da4w linears in.

    A GPU or a phone; None is any GPU with integer dot products. Where no source says that a GPU
    lacks them it has them. All known releases compute alike. Raises `InputError` for a GPU or a
    release that is not known.
    """
    if name is None:
        return VULKAN_ARITHMETIC
    gpu, at, release = name.partition("@")
    profile, _ = find_device(gpu)
    if at:
        require_release(release)
    if profile.int8_dot_product is False:
        return VULKAN_WITHOUT_DOT_PRODUCTS
    return VULKAN_ARITHMETIC
