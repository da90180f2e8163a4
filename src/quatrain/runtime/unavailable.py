"""What a runtime raises where another one may do instead."""

from quatrain.errors import InputError


class RuntimeUnavailable(InputError):
    """A runtime is not here, or lacks what a program needs; `reason` says which in a phrase."""

    def __init__(self, message: str, reason: str):
        super().__init__(message)
        self.reason = reason
