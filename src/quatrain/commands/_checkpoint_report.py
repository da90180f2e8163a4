"""How `quantize` and `convert` print the checkpoint that they wrote."""

from quatrain.human_bytes import human_bytes
from quatrain.quantize.report import QuantizeReport


def print_checkpoint(
    report: QuantizeReport, bytes_out: int, details: list[str], read_from: str
) -> None:
    """Print `details` between what every checkpoint has; `read_from`: what the source is called."""
    print(f"{report.output}: {report.tensors} tensors, group size {report.group_size}")
    print(f"  size      {human_bytes(report.bytes_in)} -> {human_bytes(bytes_out)}")
    for reason in report.why_larger:
        print(f"            {reason}")
    for line in details:
        print(line)
    if not report.tokenizer:
        print(f"  tokenizer none: the {read_from} came without a tokenizer that is read")
    for note in report.notes:
        print(f"  note: {note}")
    seconds = sum(report.seconds.values())
    print(f"  {seconds:.1f} s, peak memory {human_bytes(report.peak_rss_bytes)}")
