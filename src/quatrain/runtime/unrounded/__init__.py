"""Computes a CPU program without rounding activations to int8 or float16.

Int8 activations hide errors that are smaller than their steps, and grow over the layers; without
them a right program differs from its backbone only by float32's rounding.
"""
