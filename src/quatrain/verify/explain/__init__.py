"""Explains a phone's output: `explain.explain_output` names the cause."""
