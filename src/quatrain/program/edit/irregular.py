"""What stops layers from being stamped."""

from quatrain.errors import QuatrainError


class IrregularGraph(QuatrainError):
    """The lowered layers are not copies of each other, so they cannot be stamped."""
