"""Records the held-out generations of test_health.py with SmolLM2's two Vulkan programs.

    python tests/runtime/generation/record_generations.py 8da4w.pte weight-only.pte held_out.json

Prompts, seeds, temperatures and lengths are others than those of generations.json, on which the
thresholds were set. The intact programs answer each prompt once, by turns; the 8da4w program
answers each under one of two defects. What the intact ones wrote is "intact" in the file: whoever
records anew reads the texts and moves those that really loop to "looping", before looking at
what the check says of them.
"""

import json
import sys
from itertools import chain
from pathlib import Path

from quatrain.runtime.defects import EmulatedDefect
from quatrain.runtime.generation.generate import generate
from quatrain.runtime.generation.health import WatchedRunner
from quatrain.runtime.generation.sampling import Sampling
from quatrain.runtime.reference import ReferenceRunner
from quatrain.tokenizer import Tokenizer, find_tokenizer

GARBLING = (EmulatedDefect.FLOAT_ZERO_POINTS, EmulatedDefect.INT8_ZERO_POINTS)
TEMPERATURES = (0.0, 0.5, 1.0)
LENGTHS = (96, 24, 48)
PROMPTS = (
    "Count from one to twenty.", "Which months have thirty days?", "Where does salt come from?",
    "Translate 'thank you' into Spanish, Italian and Dutch.", "Who was Marie Curie?",
    "Write a SQL query that counts the rows of a table.", "How do I change a bicycle tire?",
    "What does a plumber do?", "Write an email that asks for a day off.",
    "Why does bread rise?", "Name the planets in order.", "What is a metaphor?",
    "Give three reasons to learn a language.", "Is a tomato a fruit or a vegetable?",
    "Describe an old library.", "How do I tie a bow tie?", "What is the Pythagorean theorem?",
    "Tell me a story about a dragon who is afraid of fire.", "What is compound interest?",
    "Write a product description for a water bottle.", "How do magnets work?",
    "What happened in 1969?", "Suggest a name for a bakery.", "What is the opposite of brave?",
    "Explain recursion with an example.", "How tall can trees grow?", "What is HTML?",
    "Write a limerick about a fox.", "How do I remove a coffee stain?", "What is an isotope?",
    "Was Napoleon short?", "Compare tea and coffee.", "How many legs does a spider have?",
    "Write a shell command that lists files by size.", "What do bees do in winter?",
    "Give me a riddle.", "How does a refrigerator work?", "Define irony.",
    "What is the currency of Japan?", "Write a slogan for a train company.",
    "How do I train a puppy?", "Why do we dream?", "What is a prime number?",
    "Make a shopping list for a picnic.", "Who painted the Mona Lisa?",
    "How is paper recycled?", "What is the plot of Hamlet?", "Describe the taste of a lemon.",
    "Write the chorus of a song about rain.", "What is the Great Wall of China?",
)  # fmt: skip


def main() -> None:
    """Record everything, and write it."""
    dynamic, weight_only, output = map(Path, sys.argv[1:])
    words = Tokenizer.load(find_tokenizer(dynamic))
    both = enumerate((dynamic, weight_only))
    intact = chain.from_iterable(record(path, None, words, i) for i, path in both)
    broken = chain.from_iterable(record(dynamic, name, words, i) for i, name in enumerate(GARBLING))
    kinds = {"intact": list(intact), "garbled": list(broken)}
    lists = [
        f'"{kind}": [\n' + ",\n".join(map(json.dumps, all_)) + "\n]" for kind, all_ in kinds.items()
    ]
    output.write_text("{\n" + ",\n".join(lists) + "\n}\n")


def record(program: Path, defect: str | None, words: Tokenizer, start: int) -> list[dict]:
    """The answers of `program` under `defect` to every second prompt."""
    runner = WatchedRunner(ReferenceRunner(program, emulate=defect))
    return [answer(runner, program, defect, words, i) for i in range(start, len(PROMPTS), 2)]


def answer(
    runner: WatchedRunner, program: Path, defect: str | None, words: Tokenizer, number: int
) -> dict:
    temperature = TEMPERATURES[number // 2 % 3]
    chat = words.apply_chat([{"role": "user", "content": PROMPTS[number]}])
    generation = generate(
        runner,
        words.encode(chat, add_special_tokens=False),
        context=512,
        max_new_tokens=LENGTHS[number // 6 % 3],
        eos_ids=words.eos_ids,
        sampling=Sampling(temperature, seed=1000 + number),
    )
    print(number, defect, generation.stopped, words.decode(generation.tokens)[:60], flush=True)
    return {
        "prompt": PROMPTS[number],
        "program": program.name,
        "defect": defect,
        "temperature": temperature,
        "stopped": generation.stopped,
        "tokens": generation.tokens,
        "entropies": [round(value, 2) for value in runner.entropies],
    }


if __name__ == "__main__":
    main()
