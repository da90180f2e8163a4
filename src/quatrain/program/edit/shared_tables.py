"""Stores a table once that a program has both as a constant of its own and of a delegate.

So it is where the compiler writes an embedding that is the output layer too.
"""

from quatrain.program.container import Program

_SMALLEST = 1024  # bytes: what is smaller is not looked for


def share_tables(program: Program) -> bool:
    """Let named data whose bytes are those of a constant be that, in place; whether there are."""
    place = program.root.constant_segment
    if place is None or not place.offsets:
        return False
    constants = program.segment(place.segment_index)
    for key in program.named_data:
        data = program.named_bytes(key)
        if len(data) >= _SMALLEST:
            for offset in place.offsets:
                # A slice past the end is shorter, and so another.
                if constants[offset : offset + len(data)] == data:
                    program.shared_keys[key] = place.segment_index, offset
                    break
    program.release_memory()
    return bool(program.shared_keys)
