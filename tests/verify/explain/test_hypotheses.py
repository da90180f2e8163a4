"""What may have happened on a phone, and how likely each is before the output is looked at."""

import json
from pathlib import Path

import pytest
from tests.support.models.tiny_programs import write_word_tokenizer

from quatrain.arithmetic import (
    VULKAN_ARITHMETIC,
    VULKAN_WITHOUT_DOT_PRODUCTS,
    XNNPACK_ARITHMETIC,
    Arithmetic,
)
from quatrain.runtime.defects import EmulatedDefect
from quatrain.targets.doctor import Finding
from quatrain.tokenizer import Tokenizer, find_tokenizer
from quatrain.tokenizer.chat_prompt import ChatOptions
from quatrain.verify.explain.hypotheses import hypotheses
from quatrain.verify.explain.prompts import Prompt, prompts_of

READ, OTHER = Prompt("as-given", "", "", (3, 4)), Prompt("stripped", "", "", (3,), "template")
MET = EmulatedDefect.GROUP_SUMS


@pytest.mark.parametrize(
    ("own", "struck"),
    [
        (VULKAN_ARITHMETIC, VULKAN_ARITHMETIC),
        (XNNPACK_ARITHMETIC, XNNPACK_ARITHMETIC),
        # It quantizes nothing here, so it is another file's.
        (VULKAN_WITHOUT_DOT_PRODUCTS, VULKAN_ARITHMETIC),
    ],
)
def test_a_defect_strikes_an_arithmetic_that_quantizes(own: Arithmetic, struck: Arithmetic) -> None:
    found = hypotheses([READ, OTHER], own, [], {}, "m.pte")
    assert [one.arithmetic for one in found if one.defect] == [struck] * len(EmulatedDefect)
    assert {one.arithmetic for one in found if not one.defect} == {own}
    assert not any(one.defect for one in hypotheses([READ, OTHER], None, [], {}, "m.pte"))


def test_what_is_known_of_a_program_is_likelier_before_it_is_looked_at() -> None:
    finding = Finding(
        MET, "", "wrong", "certain", None, [], [], None, None, "", "retarget it", "a page"
    )
    others = [VULKAN_WITHOUT_DOT_PRODUCTS]
    found = hypotheses([READ, OTHER], VULKAN_ARITHMETIC, others, {MET: finding}, "m.pte")
    penalties = {one.id: one.penalty for one in found}
    unmet = {penalties.pop(defect) for defect in EmulatedDefect if defect is not MET}
    assert list(penalties) == ["right", "weight-only", MET, "stripped"]
    assert 0 == penalties["right"] < penalties["weight-only"] < penalties[MET]
    assert len(unmet) == 1 and max(penalties.values()) < unmet.pop()
    assert [one.fix for one in found if one.defect is MET] == ["retarget it"]


def test_switches_of_a_template_are_turned(tmp_path: Path) -> None:
    write_word_tokenizer(tmp_path, 40)
    (tmp_path / "model.pte").touch()
    template = "{{ messages[0].content }}{% if enable_thinking %} w7{% else %} w8{% endif %}"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    words = Tokenizer.load(find_tokenizer(tmp_path / "model.pte"))

    def turned(options: ChatOptions) -> dict[str, tuple[int, ...]]:
        made = prompts_of(words, "w5 w6", True, options)
        return {one.id: one.tokens for one in made if one.id.startswith("template-var")}

    on, off = {"template-var-enable_thinking=true": (5, 6, 7)}, "template-var-enable_thinking=false"
    assert turned(ChatOptions()) == turned(ChatOptions(variables={"enable_thinking": False})) == on
    assert turned(ChatOptions(variables={"enable_thinking": True})) == {off: (5, 6, 8)}
