"""Quatrain exports int4 Llama-family backbones to on-device programs and proves them right."""
