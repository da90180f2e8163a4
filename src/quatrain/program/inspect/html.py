"""A report as one self-contained HTML page: no script, no font and no picture from elsewhere."""

from dataclasses import dataclass
from pathlib import Path

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined, select_autoescape

from quatrain.atomic_files import whole_file
from quatrain.human_bytes import human_bytes
from quatrain.int4 import Scheme
from quatrain.program.container import Program
from quatrain.program.inspect.linears import Linear
from quatrain.program.inspect.report import ProgramReport, inspect_program, only_graph, tensor_text
from quatrain.program.inspect.role_names import CONV_NAMES, LATENT_NAMES
from quatrain.program.vulkan.graph import Operator, VulkanGraph
from quatrain.program.vulkan.linear_kernels import OtherScheme

_ROLES = ("q", "k", "v", "qkv", *LATENT_NAMES, "o", *CONV_NAMES, "gate", "up", "gateup", "down")
# One colour per scheme, in the page's kernel map.
_COLOURS = {
    Scheme.DYNAMIC_INT8: "#2f6fdb", Scheme.WEIGHT_ONLY: "#1a936f",
    OtherScheme.FLOAT: "#b5651d", OtherScheme.WEIGHT_ONLY_INT8: "#7d5ba6",
    OtherScheme.STATIC_INT8: "#a63d57",
}  # fmt: skip


@dataclass(frozen=True)
class Slice:
    """One bar of the size chart; `share` is in percent of the file."""

    kind: str
    bytes: int
    share: float


@dataclass(frozen=True)
class Group:
    """A run of operators of the chain, under one heading."""

    title: str
    lines: list[tuple[int, str, str, str]]  # index, operator, inputs, output


def render_page(program: Program) -> str:
    """The page for `program`, as HTML text."""
    report = inspect_program(program)
    graph = only_graph(program)
    return (
        page_environment("quatrain.program.inspect")
        .get_template("page.html")
        .render(
            report=report,
            name=program.path.name,
            slices=_slices(report),
            roles=[role for role in _ROLES if any(lin.role == role for lin in report.linears)],
            layers=_layers(report),
            elsewhere=[linear for linear in report.linears if linear.layer is None],
            colours=_COLOURS,
            groups=_groups(graph, report.linears) if graph else [],
        )
    )


def page_environment(package: str) -> Environment:
    """What renders the templates of `package`, which may include this one's style.css.

    Sizes in bytes have a filter, `size`.
    """
    loaders = [PackageLoader(name, "") for name in (package, "quatrain.program.inspect")]
    environment = Environment(
        loader=ChoiceLoader(loaders),
        autoescape=select_autoescape(),  # of HTML, not of Markdown
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters["size"] = human_bytes
    return environment


def write_page(program: Program, path: Path) -> None:
    """Write the page for `program` to `path`, whole or not at all."""
    with whole_file(path) as temporary:
        # The name of a file may be no UTF-8.
        temporary.write_text(render_page(program), encoding="utf-8", errors="backslashreplace")


def _slices(report: ProgramReport) -> list[Slice]:
    total = max(report.bytes, 1)
    return [Slice(k, n, round(100 * n / total, 2)) for k, n in report.bytes_by_kind.items()]


def _layers(report: ProgramReport) -> dict[int, dict[str, Linear]]:
    layers: dict[int, dict[str, Linear]] = {}
    for linear in report.linears:
        if linear.layer is not None:
            layers.setdefault(linear.layer, {})[linear.role] = linear
    return dict(sorted(layers.items()))


def _groups(graph: VulkanGraph, linears: list[Linear]) -> list[Group]:
    """The chain cut by layer: an operator belongs to the next linear that runs."""
    groups: list[Group] = []
    following = iter(linears)
    linear = next(following, None)
    for index, operator in enumerate(graph.operators):
        title = _title(linear)
        if not groups or groups[-1].title != title:
            groups.append(Group(title, []))
        groups[-1].lines.append(_line(graph, index, operator))
        while linear is not None and linear.operator <= index:
            linear = next(following, None)
    return groups


def _title(linear: Linear | None) -> str:
    if linear is None:
        return "after the last linear"
    return "output" if linear.layer is None else f"layer {linear.layer}"


def _line(graph: VulkanGraph, index: int, operator: Operator) -> tuple[int, str, str, str]:
    read, written = (
        ", ".join(filter(None, (tensor_text(graph, value_id) for value_id in ids)))
        for ids in (operator.args[:-1], graph.outputs_of(operator))
    )
    return index, operator.kind, read, written or "integer"
