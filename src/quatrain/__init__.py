"""Quatrain exports int4 Llama-family backbones to on-device programs and proves them right."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quatrain.program import Program, open_program

__all__ = ["Program", "open_program"]


def __getattr__(name: str) -> Any:
    """Import what this package offers when it is first used: `import quatrain` stays instant."""
    if name in __all__:
        import quatrain.program

        return getattr(quatrain.program, name)
    raise AttributeError(f"module 'quatrain' has no attribute {name!r}")
