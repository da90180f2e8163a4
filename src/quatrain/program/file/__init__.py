"""The bytes of a `.pte` file: FlatBuffers, their schemas, and segments."""
