"""What is raised for a part of a program that is not computed without rounding."""

from quatrain.errors import QuatrainError


class NotComputed(QuatrainError):
    """A part of a kind that is not computed here, in words for people."""


class UnknownNode(NotComputed):
    """A node or a value of an XNNPACK delegate is none that is computed here."""
