"""Reads and writes programs (`.pte`) of Quatrain and ExecuTorch, without torch."""

from quatrain.program.container import Program, open_program
from quatrain.program.delegate import Delegate
from quatrain.program.methods import Instruction, Method
from quatrain.program.vulkan.graph import (
    Constant,
    Operator,
    Plain,
    SymInt,
    Tensor,
    Value,
    ValueList,
    VulkanGraph,
)
from quatrain.program.writer import write_program

__all__ = [
    "Constant", "Delegate", "Instruction", "Method", "Operator", "Plain", "Program", "SymInt",
    "Tensor", "Value", "ValueList", "VulkanGraph", "open_program", "write_program",
]  # fmt: skip
