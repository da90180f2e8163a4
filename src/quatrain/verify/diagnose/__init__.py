"""The activations that the int4 linears meet, in figures and as a picture."""
