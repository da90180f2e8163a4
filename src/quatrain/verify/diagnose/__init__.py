"""Statistics of the activations of int4 linears, as figures and as a picture."""
