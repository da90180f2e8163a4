"""The XNNPACK program of three layers, each constant known by the tensor it came from."""

from pathlib import Path
from typing import Any

from quatrain.backbone.layers.moe import MixtureOfExperts
from quatrain.backbone.model import Backbone
from quatrain.export.template.template import cached_template
from quatrain.int4 import Scheme
from quatrain.program import Program, open_program
from quatrain.program.edit.replicated_layers import IrregularGraph
from quatrain.quiet import quiet
from quatrain.stages import Stages


def xnnpack_template(backbone: Backbone, metadata: dict[str, Any], stages: Stages) -> Program:
    """The template for `backbone`, whose parts are CPU operators already.

    Raises `IrregularGraph` if the layers do not allow for one.
    """
    if any(isinstance(part, MixtureOfExperts) for part in backbone.modules()):
        raise IrregularGraph("experts are branches, which go to instructions by number")
    if not backbone.rewinds:
        raise IrregularGraph("what one with a state hands on lies in another place by turns")

    def make(placeholder: Backbone, path: Path) -> None:
        with stages("import the compiler"), quiet():
            from quatrain.export.xnnpack.lowering import write_named_program
        write_named_program(placeholder, metadata, path, stages)

    settings = {"backend": "xnnpack", "metadata": metadata}
    return open_program(cached_template(backbone, Scheme.DYNAMIC_INT8, settings, make))
