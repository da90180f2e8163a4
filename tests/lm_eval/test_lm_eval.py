"""lm-eval on our models: its own `hf` model's results, from a task file, of every kind of request.

Skipped where `pip install 'lm_eval[hf]'` was not run: `make lm-eval`.
"""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tokenizers
import transformers
from tests.support.models.peers import random_model, saved
from tests.support.models.tiny_programs import Tiny

from quatrain.errors import InputError
from quatrain.lm_eval.__main__ import main

pytest.importorskip("lm_eval")
pytest.importorskip("accelerate")

TASKS = {
    "words_choice": "output_type: multiple_choice\ndoc_to_choice: choices\ndoc_to_target: answer\n"
    "metric_list: [{metric: acc}]",
    "words_text": 'output_type: loglikelihood_rolling\ndoc_to_text: ""\ndoc_to_target: text\n'
    "metric_list: [{metric: word_perplexity}]",
    "words_written": "output_type: generate_until\ndoc_to_target: text\n"
    "generation_kwargs: {until: [w7], max_gen_toks: 12}\nmetric_list: [{metric: exact_match}]",
}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of task files and what they read; some texts are longer than the context of 64."""
    folder = tmp_path_factory.mktemp("tasks")
    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps(_document(index)) + "\n" for index in range(5)))
    for name, said in TASKS.items():
        lines = [f"task: {name}", "dataset_path: json", "test_split: train"]
        lines += ["doc_to_text: question"] * ("doc_to_text" not in said)
        lines += [f"dataset_kwargs: {{data_files: {data}}}", said]
        (folder / f"{name}.yaml").write_text("\n".join(lines) + "\n")
    return folder


def _document(index: int) -> dict[str, Any]:
    words = [f"w{(index * 29 + i * 7 + i * i) % 96}" for i in range(20 * (index + 1))]
    question = " ".join(words[: 3 + 15 * index])
    choices = ["w5", "w6", "w8 w9 w11"]
    return {"question": question, "text": " ".join(words), "choices": choices, "answer": index % 3}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lm-eval") / "model"
    saved(random_model("Llama", max_position_embeddings=64), folder)
    words = tokenizers.models.WordLevel({f"w{i}": i for i in range(96)}, unk_token="w0")
    tokenizer = tokenizers.Tokenizer(words)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    named = {"bos_token": "w94", "eos_token": "w95", "pad_token": "w0"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named).save_pretrained(
        folder
    )
    return folder


def _answers(lm: Any, tasks: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """What `lm` answered to each request, by task."""
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tasks / "cache"))
    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    found = simple_evaluate(
        model=lm, tasks=list(TASKS), task_manager=manager, bootstrap_iters=0, verbosity="ERROR"
    )
    assert found is not None
    return {name: [one["resps"] for one in found["samples"][name]] for name in TASKS}


def _numbers(answers: list[Any]) -> list[float]:
    flat = answers
    while isinstance(flat[0], list | tuple):
        flat = [one for several in flat for one in several]
    return [float(one) for one in flat]


def test_it_answers_as_lm_evals_own_model(model: Path, tasks: Path, monkeypatch) -> None:
    from lm_eval.models.huggingface import HFLM

    from quatrain.lm_eval.model import QuatrainLM

    theirs = _answers(HFLM(str(model), device="cpu", batch_size=4), tasks, monkeypatch)
    ours = _answers(QuatrainLM(model), tasks, monkeypatch)
    for name in ("words_choice", "words_text"):
        expected = _numbers(theirs[name])
        assert len(expected) > 4 and _numbers(ours[name]) == pytest.approx(expected, abs=1e-4)
    assert ours["words_written"] == theirs["words_written"]


@pytest.mark.parametrize("scheme", ["8da4w", "weight-only"])
def test_a_program_answers_as_its_checkpoint(tiny: Tiny, scheme: str) -> None:
    from quatrain.lm_eval.model import QuatrainLM

    eager = QuatrainLM(tiny.checkpoint, scheme=scheme)
    program = QuatrainLM(tiny.programs[scheme], runtime="reference")
    pairs = [("w5 w17 w40", " w9"), ("w5 w17 w40", " w61"), ("w3", " w22 w61 w33 w4")]
    asked = [SimpleNamespace(args=pair) for pair in pairs]
    answered = [lm.loglikelihood(asked, disable_tqdm=True) for lm in (eager, program)]
    scores = [[score for score, _ in answers] for answers in answered]
    tolerance = 1e-2 if scheme == "8da4w" else 1e-4  # a rounding that falls otherwise is a step
    assert scores[1] == pytest.approx(scores[0], abs=tolerance)
    told = {"max_gen_toks": 8, "until": ["w999"]}
    texts = [
        lm.generate_until([SimpleNamespace(args=("w7", told))], True) for lm in (eager, program)
    ]
    assert texts[0] == texts[1] and len(texts[0][0].split()) == 8


def test_a_checkpoint_is_scored_in_the_scheme_asked_for(tiny: Tiny) -> None:
    from quatrain.lm_eval.model import QuatrainLM

    asked = [SimpleNamespace(args=("w5 w17 w40", " w9"))]
    default, dynamic, weight_only = (
        QuatrainLM(tiny.checkpoint, scheme=scheme).loglikelihood(asked, True)[0][0]
        for scheme in (None, "8da4w", "weight-only")
    )
    assert default == dynamic != weight_only


def test_its_own_command_line_knows_the_model(model, monkeypatch, capsys) -> None:
    from lm_eval.api.registry import get_model

    monkeypatch.setattr(sys, "argv", ["lm_eval", "run", "--help"])
    with pytest.raises(SystemExit) as exited:
        main()
    assert exited.value.code == 0 and "--model_args" in capsys.readouterr().out
    said = {"batch_size": 1, "max_batch_size": None, "device": "cuda:0"}  # what it adds itself
    lm = get_model("quatrain").create_from_arg_obj({"path": str(model)}, said)
    assert lm.max_length == 64 and lm.prefix_token_id == 94


def test_what_cannot_be_asked_is_refused(tiny: Tiny) -> None:
    from quatrain.lm_eval.model import QuatrainLM

    with pytest.raises(InputError, match="scheme=weight-only is for checkpoints"):
        QuatrainLM(tiny.programs["8da4w"], scheme="weight-only")
    with pytest.raises(InputError, match="scheme=w4a8: expected one of 8da4w, weight-only"):
        QuatrainLM(tiny.checkpoint, scheme="w4a8")
    with pytest.raises(InputError, match="runtime=gpu is for programs"):
        QuatrainLM(tiny.checkpoint, runtime="gpu")
    lm = QuatrainLM(tiny.checkpoint)
    with pytest.raises(InputError, match="names no token that ends a text"):
        lm.loglikelihood([SimpleNamespace(args=("", "w9"))], True)
    for told, message in (
        ({"max_gen_toks": 8, "top_p": 0.9}, "generate with top_p, expected do_sample"),
        ({"max_gen_toks": 999}, "asks for 999 tokens"),
    ):
        with pytest.raises(InputError, match=message):
            lm.generate_until([SimpleNamespace(args=("w7", told))], True)
