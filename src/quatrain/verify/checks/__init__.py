"""What `verify` checks: the model's sizes, packed constants, each operator's values, logits."""
