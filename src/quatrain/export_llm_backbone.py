"""`export_llm_backbone`: the exporter under the name and flags of ExecuTorch PR 20644."""

from pathlib import Path
from typing import Annotated

import typer

from quatrain.cli import HELP_OPTIONS, clean_up_when_ended, exit_cleanly, restart_in_utf8
from quatrain.commands._plain_command import PlainCommand
from quatrain.commands.export import export
from quatrain.commands.options.export import (
    AllowFallback,
    AttentionSink,
    BackendOption,
    DtypeOption,
    EmbeddingInput,
    HiddenOutput,
    KvCacheOption,
    MaxSeqLen,
    Params,
    PrefillChunkSize,
    Target,
    WeightOnlyLinear,
)
from quatrain.commands.options.shared import Debug, Json, Runtime, TokenizerFile


def export_llm_backbone(
    checkpoint: Annotated[
        Path, typer.Option(metavar="FILE", help="A .pth or .safetensors file, or a folder.")
    ],
    output: Annotated[Path, typer.Option(metavar="MODEL.PTE", help="The program to write.")],
    params: Params = None,
    weight_only_linear: WeightOnlyLinear = False,
    backend: BackendOption = "vulkan",
    activation_dtype: DtypeOption = None,
    max_seq_len: MaxSeqLen = None,
    prefill_chunk_size: PrefillChunkSize = None,
    embedding_input: EmbeddingInput = False,
    hidden_output: HiddenOutput = False,
    kv_cache: KvCacheOption = None,
    attention_sink: AttentionSink = None,
    allow_fallback: AllowFallback = False,
    target: Target = None,
    runtime: Runtime = None,
    tokenizer: TokenizerFile = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Make a program for phones from an int4 checkpoint; the same as `quatrain export`.

    Example: `export_llm_backbone --checkpoint c.pth --params p.json --output m.pte
    --weight-only-linear`
    """
    export(
        checkpoint,
        output,
        params=params,
        weight_only_linear=weight_only_linear,
        backend=backend,
        activation_dtype=activation_dtype,
        max_seq_len=max_seq_len,
        prefill_chunk_size=prefill_chunk_size,
        embedding_input=embedding_input,
        hidden_output=hidden_output,
        kv_cache=kv_cache,
        attention_sink=attention_sink,
        allow_fallback=allow_fallback,
        target=target,
        runtime=runtime,
        tokenizer=tokenizer,
        json=json,
        debug=debug,
    )


def main() -> None:
    """Entry point of the installed script `export_llm_backbone`."""
    restart_in_utf8()
    app = typer.Typer(pretty_exceptions_enable=False, context_settings=HELP_OPTIONS)
    app.command(cls=PlainCommand)(export_llm_backbone)
    clean_up_when_ended()
    exit_cleanly(app)


if __name__ == "__main__":
    main()
