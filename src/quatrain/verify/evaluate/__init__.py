"""How well programs and models predict a text: perplexity and KL divergence."""
