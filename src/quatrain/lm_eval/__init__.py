"""Our models in lm-eval, EleutherAI's Language Model Evaluation Harness."""
