"""How often `quatrain explain` names the right cause: each defect that can be emulated, and health.

    python benchmarks/explain.py smollm2|tiny --work DIR

Phones are stood in for by the reference and, for every second prompt, by the GPU runtime, which
round otherwise; of health also by a program in half precision on the GPU. 20 prompts; of each, what
each defect writes, and five healthy texts of both schemes, greedy and sampled. The texts, not the
token ids, are explained. It goes on where it was stopped. `tiny` is a small model trained on the
spot, whose prompts are long enough for dq8ca-m-gt-k; those of `smollm2` are not. dq8ca-group-sums
is left out: Quatrain writes no program that has its trigger.
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from measure import machine, print_table, write_json
from quatrain.export import ExportOptions, export_checkpoint
from quatrain.program import Program, open_program, write_program
from quatrain.program.edit.retarget import retarget
from quatrain.quantize.calibration import DEFAULT_TEXT
from quatrain.quantize.pipeline import quantize_model
from quatrain.runtime.defects import EmulatedDefect
from quatrain.runtime.generate import generate
from quatrain.runtime.load import load_runner
from quatrain.runtime.sampling import Sampling
from quatrain.smollm2 import fetch_smollm2
from quatrain.stages import Stages
from quatrain.targets.doctor import examine
from quatrain.tokenizer import Tokenizer, find_tokenizer
from quatrain.tokenizer.chat_prompt import ChatOptions
from quatrain.verify.explain.asked import Asked
from quatrain.verify.explain.computed import ComputedProgram
from quatrain.verify.explain.explain import explain_all
from quatrain.verify.explain.phone_output import PhoneOutput
from quatrain.verify.explain.setting import setting_of
from tiny_trained import write_tiny_trained

RESULTS = Path(__file__).parent / "results" / "explain.json"
NEW_TOKENS, CONTEXT = 24, 512
QUESTIONS = (
    "Why is the sky blue?", "Write a short poem about the sea.", "What is compound interest?",
    "List three uses of a paper clip.", "How do magnets work?", "Who was Marie Curie?",
    "Translate 'good morning' into French.", "Give three reasons to learn a language.",
    "What is the capital of Portugal?", "How do I boil an egg?", "Explain what a database is.",
    "Describe an old library.", "Why do we dream?", "What do bees do in winter?",
    "Write a slogan for a train company.", "How does a refrigerator work?",
    "What is a prime number?", "Tell me about the moon.", "How is paper recycled?",
    "Suggest a name for a bakery.",
)  # fmt: skip
# Health: device, program, temperature.
HEALTHY = (
    ("reference", "8da4w", 0.0), ("gpu", "half", 0.0), ("reference", "8da4w", 0.8),
    ("gpu", "weight-only", 0.0), ("reference", "weight-only", 1.0),
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=["smollm2", "tiny"])
    parser.add_argument("--work", type=Path, required=True, help="where all is kept")
    options = parser.parse_args()
    folder = options.work / options.model
    folder.mkdir(parents=True, exist_ok=True)
    programs = make_programs(options.model, folder)
    words = Tokenizer.load(find_tokenizer(programs["8da4w"]))
    chat = options.model == "smollm2"
    prompts = QUESTIONS if chat else excerpts(words)
    texts = Kept(folder / "texts.jsonl")
    write_texts(programs, words, prompts, chat, texts)
    verdicts = Kept(folder / "verdicts.jsonl")
    explain_texts(programs, words, prompts, chat, texts, verdicts)
    report(options.model, verdicts)


class Kept:
    """Rows of JSON by a key, each written as soon as it is there."""

    def __init__(self, path: Path):
        self.path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.rows: dict[str, Any] = {row["key"]: row for row in map(json.loads, lines)}

    def add(self, key: str, **row: Any) -> None:
        self.rows[key] = {"key": key} | row
        with self.path.open("a") as file:
            file.write(json.dumps(self.rows[key]) + "\n")


def make_programs(model: str, folder: Path) -> dict[str, Path]:
    """The programs by name; those that are there are not made again."""
    checkpoint = folder / "int4"
    if not checkpoint.exists():
        if model == "smollm2":
            quantize_model(fetch_smollm2(), checkpoint, method="rtn")
        else:
            if not (folder / "float" / "tokenizer.json").exists():
                (folder / "float").mkdir(exist_ok=True)
                write_tiny_trained(folder / "float")
            quantize_model(folder / "float", checkpoint, method="rtn", group_size=128)
    programs = {
        name: folder / f"{name}.pte" for name in ("8da4w", "weight-only", "half", "height-packed")
    }
    if not programs["8da4w"].exists():
        export_checkpoint(checkpoint, programs["8da4w"], ExportOptions(max_seq_len=CONTEXT))
    if not programs["half"].exists():
        halved = ExportOptions(max_seq_len=CONTEXT, activation_dtype="fp16")
        export_checkpoint(checkpoint, programs["half"], halved)
    if not programs["weight-only"].exists():
        write_edited(programs["8da4w"], programs["weight-only"], weight_only)
    if not programs["height-packed"].exists():
        write_edited(programs["8da4w"], programs["height-packed"], height_packed)
    return programs


def write_edited(source: Path, output: Path, edit: Any) -> None:
    program = open_program(source)
    edit(program)
    write_program(program, output)


def weight_only(program: Program) -> None:
    retarget(program, "weight-only")


def height_packed(program: Program) -> None:
    """As ExecuTorch's own export has an embedding of 16,385 to 65,536 rows."""
    graph = program.vulkan
    (embedding,) = [one for one in graph.operators if one.kind == "aten.embedding"]
    tensor = graph.tensor(embedding.out)
    graph.values[embedding.out] = replace(tensor, layout="height_packed")


def excerpts(words: Tokenizer) -> list[str]:
    """Prompts of 300 tokens."""
    ids = words.encode(DEFAULT_TEXT.read_text(encoding="utf-8"))
    return [words.decode(ids[at : at + 300]) for at in range(1000, 1000 + 20 * 977, 977)]


def cases(chat: bool) -> Iterator[tuple[str, int, str, str, str | None, float]]:
    """(key, prompt, device, program, defect, temperature) of each text."""
    for defect in EmulatedDefect:
        name = "height-packed" if defect == EmulatedDefect.HEIGHT_PACKED_EMBEDDING else "8da4w"
        if defect == EmulatedDefect.GROUP_SUMS:
            continue
        if chat and defect == EmulatedDefect.MORE_ROWS_THAN_SUMS:
            continue
        for number in range(len(QUESTIONS)):
            device = "gpu" if number % 2 else "reference"
            if name == "height-packed":
                device = "reference"
            yield f"{defect} {number}", number, device, name, defect, 0.0
    for device, name, temperature in HEALTHY:
        for number in range(len(QUESTIONS)):
            yield f"{device} {name} {temperature} {number}", number, device, name, None, temperature


def write_texts(
    programs: dict[str, Path], words: Tokenizer, prompts: Any, chat: bool, texts: Kept
) -> None:
    loaded: tuple[Any, Any] = (None, None)
    for key, number, device, name, defect, temperature in cases(chat):
        if key in texts.rows:
            continue
        if loaded[0] != (device, name, defect):
            loaded = None, None
            loaded = (device, name, defect), load_runner(programs[name], device, defect)
        text = prompts[number]
        if chat:
            text = words.apply_chat([{"role": "user", "content": text}])
        tokens = words.encode(text, add_special_tokens=not chat)
        found = generate(
            loaded[1], tokens, context=CONTEXT, max_new_tokens=NEW_TOKENS, eos_ids=words.eos_ids,
            sampling=Sampling(temperature=temperature, seed=number),
        )  # fmt: skip
        written = words.decode(found.tokens)
        print(f"{key}: {written[:60]!r}", flush=True)
        texts.add(key, prompt=number, program=name, defect=defect, text=written)


def explain_texts(
    programs: dict[str, Path], words: Tokenizer, prompts: Any, chat: bool, texts: Kept,
    verdicts: Kept,
) -> None:  # fmt: skip
    opened: dict[str, tuple[ComputedProgram, list]] = {}
    for number, prompt in enumerate(prompts):
        for name in ("8da4w", "height-packed", "weight-only"):
            todo = [
                row for row in texts.rows.values()
                if row["prompt"] == number and row["program"].replace("half", "8da4w") == name
                and row["key"] not in verdicts.rows
            ]  # fmt: skip
            if not todo:
                continue
            if name not in opened:
                found = examine(open_program(programs[name]))
                opened[name] = ComputedProgram(programs[name]), found
            model, findings = opened[name]
            question = Asked(prompt, chat, ChatOptions())
            setting = setting_of(words, model, question, findings, model.own)
            written = [row for row in todo if row["text"].strip()]
            outputs = [PhoneOutput(text=row["text"]) for row in written]
            for row, one in zip(written, explain_all(outputs, setting, Stages()), strict=True):
                add_verdict(verdicts, texts, row, one.cause, one.candidate, one.candidates)
            for row in todo:
                if not row["text"].strip():
                    add_verdict(verdicts, texts, row, "nothing written", None, [])


def add_verdict(
    verdicts: Kept, texts: Kept, row: dict, cause: str, candidate: str | None, ranked: Any
) -> None:
    healthy = texts.rows[f"reference 8da4w 0.0 {row['prompt']}"]["text"]
    top = [[one.id, round(one.log_likelihood, 1)] for one in ranked[:3]]
    print(f"{row['key']}: {cause} {candidate} {top}", flush=True)
    verdicts.add(
        row["key"], defect=row["defect"], cause=cause, candidate=candidate,
        changed=row["text"] != healthy, top=top,
    )  # fmt: skip


def report(model: str, verdicts: Kept) -> None:
    by_defect: dict[str, Counter] = {}
    healthy: Counter = Counter()
    for row in verdicts.rows.values():
        if row["defect"] is None:
            healthy[row["cause"]] += 1
            continue
        kind = "nothing written" if row["cause"] == "nothing written" else (
            "changed nothing" if not row["changed"] else
            "right" if row["candidate"] == row["defect"] else f"{row['cause']}"
        )  # fmt: skip
        by_defect.setdefault(row["defect"], Counter())[kind] += 1
    rows = [[name, *(str(counts[kind]) for kind in KINDS)] for name, counts in by_defect.items()]
    print_table(f"{model}: what each defect wrote", ["defect", *KINDS], rows)
    print_table(f"{model}: healthy texts", list(healthy), [[str(n) for n in healthy.values()]])
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    known[model] = {"machine": machine(), "new_tokens": NEW_TOKENS, "defects": by_defect,
                    "healthy": healthy}  # fmt: skip
    write_json(RESULTS, known)


KINDS = ("right", "changed nothing", "nothing written", "unknown", "sampling", "defect", "template")


if __name__ == "__main__":
    main()
