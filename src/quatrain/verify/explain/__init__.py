"""What a text is that a phone wrote: `explain.explain_output` names the cause."""
