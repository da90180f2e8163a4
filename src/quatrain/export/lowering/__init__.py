"""Lowering code of both backends, and the private APIs that they use."""
