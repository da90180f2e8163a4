"""What a text is that a phone wrote: `explain_output` names the cause, with the evidence."""

from quatrain.verify.explain.explain import explain_output
from quatrain.verify.explain.explanation import Candidate, Explanation
from quatrain.verify.explain.phone_output import PhoneOutput, read_phone_output

__all__ = ["Candidate", "Explanation", "PhoneOutput", "explain_output", "read_phone_output"]
