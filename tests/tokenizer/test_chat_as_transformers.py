"""A chat prompt is what transformers' `apply_chat_template` gives, on templates of every kind."""

import json
import re
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models

from quatrain.errors import InputError
from quatrain.tokenizer import Tokenizer
from quatrain.tokenizer.chat import templates_of
from quatrain.tokenizer.chat_prompt import ChatOptions, chat_prompt

# What the families' templates are made of, each in one of our own.
TEMPLATES = {
    file.stem: file.read_text(encoding="utf-8")
    for file in sorted(Path(__file__).with_name("chat_templates").glob("*.jinja"))
}
TEXT = st.sampled_from(("", " hi ", "</think>x", "<r>a</r>", '"quoted"\t<b>', "é漢")) | st.text(
    max_size=5
)
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(("system", "user", "assistant", "tool")), "content": TEXT},
    optional={"reasoning_content": TEXT, "thinking": TEXT, "name": TEXT | st.none()},
)
TOOL = {"type": "function", "function": {"name": "now", "parameters": {"type": "object"}}}
CONFIG = {"bos_token": "<s>", "eos_token": "</s>"}


def tokenizer_of(config: dict) -> Tokenizer:
    model = tokenizers.Tokenizer(models.BPE())
    model.add_special_tokens(["<s>", "</s>", "<|end|>"])
    return Tokenizer(model, config, "tokenizer.json")


@pytest.mark.parametrize("name", TEMPLATES)
@settings(deadline=None, max_examples=30)
@given(
    messages=st.lists(MESSAGE, min_size=1, max_size=5),
    tools=st.sampled_from((None, [TOOL], [TOOL, TOOL])),
    variables=st.fixed_dictionaries(
        {},
        optional={
            "enable_thinking": st.booleans(),
            "date_string": TEXT,
            "reasoning": TEXT,
            "documents": st.lists(st.fixed_dictionaries({"title": TEXT, "text": TEXT})),
        },
    ),
)
def test_any_conversation(name, messages, tools, variables):
    from transformers import PreTrainedTokenizerFast

    ours = tokenizer_of(CONFIG | {"chat_template": TEMPLATES[name]})
    theirs = PreTrainedTokenizerFast(tokenizer_object=ours.model, **CONFIG)
    try:
        expected = theirs.apply_chat_template(
            messages,
            tools=tools,
            chat_template=TEMPLATES[name],
            tokenize=False,
            add_generation_prompt=True,
            **variables,
        )
    except Exception as error:
        with pytest.raises(InputError, match=re.escape(str(error))):
            ours.apply_chat(messages, tools=tools, variables=variables)
    else:
        assert ours.apply_chat(messages, tools=tools, variables=variables) == expected


def test_several_templates(tmp_path):
    """In a list of tokenizer_config.json; in files of their own, which count before it."""
    from transformers import AutoTokenizer

    tokenizer_of({}).model.save(str(tmp_path / "tokenizer.json"))
    named = [{"name": name, "template": name} for name in ("default", "tool_use", "rag")]
    config = {"chat_template": named}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')

    def texts() -> list[str]:
        ours = Tokenizer.load(tmp_path / "tokenizer.json")
        theirs = AutoTokenizer.from_pretrained(tmp_path)
        found = []
        for tools, template in ((None, None), ([TOOL], None), (None, "rag"), ([TOOL], "rag")):
            text = ours.apply_chat(user, tools=tools, template=template)
            assert text == theirs.apply_chat_template(
                user, tools=tools, chat_template=template, tokenize=False
            )
            found.append(text)
        return found

    user = [{"role": "user", "content": "hi"}]
    assert texts() == ["default", "tool_use", "rag", "rag"]
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "rag.jinja").write_text("rag, filed")
    (tmp_path / "chat_template.jinja").write_text("default, filed")
    assert texts() == ["default, filed", "default, filed", "rag, filed", "rag, filed"]
    ours = Tokenizer.load(tmp_path / "tokenizer.json")
    with pytest.raises(
        InputError, match="no chat template named 'x', expected one of default, rag"
    ):
        ours.apply_chat(user, template="x")


def test_a_processors_template(tmp_path):
    tokenizer_of({}).model.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "chat_template.json").write_text('{"chat_template": "its own"}')
    assert Tokenizer.load(tmp_path / "tokenizer.json").chat_template == "its own"
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": null}')
    assert Tokenizer.load(tmp_path / "tokenizer.json").chat_template == "its own"
    # Where transformers of 2024 kept it, which counts before that.
    (tmp_path / "processor_config.json").write_text('{"chat_template": "older"}')
    assert Tokenizer.load(tmp_path / "tokenizer.json").chat_template == "older"


PARTS = (
    # As SmolVLM's; as LLaVA-OneVision's; and one that takes a system message as a plain text.
    "{% for m in messages %}{{ m.role }}{% if m.content[0]['type'] == 'image' %}:{% else %}: "
    "{% endif %}{% for c in m.content %}{% if c.type == 'text' %}{{ c['text'] }}{% endif %}"
    "{% endfor %}<|end|>\n{% endfor %}",
    "{% for m in messages %}{{ m.role }}{% for c in m.content | selectattr('type', 'equalto', "
    "'text') %}\n{{ c.text }}{% endfor %}<|end|>{% endfor %}",
    "{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}{% else %}"
    "{{ m.content[0].text }}<|end|>{% endif %}{% endfor %}",
)


@pytest.mark.parametrize("template", PARTS)
@pytest.mark.parametrize("system", [None, "Be brief."])
def test_a_text_that_a_template_wants_in_parts(template, system):
    """As a model that also sees is given it; of a plain text such a template shows nothing."""
    from transformers import PreTrainedTokenizerFast

    ours = tokenizer_of(CONFIG | {"chat_template": template})
    theirs = PreTrainedTokenizerFast(tokenizer_object=ours.model, **CONFIG)
    said = [] if system is None else [{"role": "system", "content": system}]
    said.append({"role": "user", "content": "hi"})
    plain = {"system"} if template == PARTS[2] else set()
    parts = [
        one
        if one["role"] in plain
        else one | {"content": [{"type": "text", "text": one["content"]}]}
        for one in said
    ]
    expected = theirs.apply_chat_template(parts, chat_template=template, tokenize=False)
    assert "hi" in expected
    assert chat_prompt(ours, "hi", ChatOptions(system=system)) == expected
    assert ours.eos_ids == [1, 2]


def test_nothing_said_beside_a_prompt_is_ignored():
    thinking = tokenizer_of(CONFIG | {"chat_template": TEMPLATES["thinking"]})
    off = chat_prompt(thinking, "hi", ChatOptions(variables={"enable_thinking": False}))
    assert off.endswith("<think>\n\n</think>\n\n")
    told = chat_prompt(thinking, "hi", ChatOptions(system="Be brief.", tools=[TOOL]))
    assert "system\nBe brief." in told and '"name": "now"' in told
    for name in ("enable_thinkin", "content", "m"):  # the template sets the last two itself
        with pytest.raises(
            InputError, match=rf"{name}: .*does not use it, expected one of enable_thinking$"
        ):
            chat_prompt(thinking, "hi", ChatOptions(variables={name: False}))
    plain = tokenizer_of(CONFIG | {"chat_template": "{{ messages[0].content }}"})
    with pytest.raises(InputError, match=r"does not use it, nor any other variable$"):
        chat_prompt(plain, "hi", ChatOptions(variables={"enable_thinking": False}))
    for name in ("messages", "tools", "add_generation_prompt"):
        with pytest.raises(InputError, match=rf"--template-var {name}: is set by "):
            chat_prompt(thinking, "hi", ChatOptions(variables={name: False}))
    deaf = tokenizer_of({"chat_template": "{{ messages[-1].content }}"})
    with pytest.raises(InputError, match="does not support tools"):
        chat_prompt(deaf, "hi", ChatOptions(tools=[TOOL]))
    with pytest.raises(InputError, match="leaves out a system message"):
        chat_prompt(deaf, "hi", ChatOptions(system="Be brief."))
    for nothing in ("", "{{ bos_token }}Yours?"):
        with pytest.raises(InputError, match="leaves out the prompt; leave --chat out"):
            chat_prompt(tokenizer_of(CONFIG | {"chat_template": nothing}), "hi", ChatOptions())
    strict = "{% for m in messages %}{{ m.content or raise_exception('empty') }}{% endfor %}"
    told = chat_prompt(tokenizer_of({"chat_template": strict}), "hi", ChatOptions(system="Be."))
    assert told == "Be.hi"


def test_a_call_without_a_text_has_an_empty_one():
    """As OpenAI's clients hand it back, to templates that do not ask whether there is one."""
    template = (
        "{% for m in messages %}{{ m['content'].split('x')[-1] + m.role }}"
        "{% if m.content is none %}?{% endif %}{{ m.tool_calls }}{% endfor %}"
    )
    asked = {"role": "user", "content": "hi"}
    call = {"role": "assistant", "tool_calls": [TOOL]}
    ours = tokenizer_of({"chat_template": template})
    found = ours.apply_chat([asked, call | {"content": None}])
    assert found == ours.apply_chat([asked, call | {"content": ""}])


@pytest.mark.parametrize(
    ("template", "ends"),
    [
        ("{% for m in messages %}{{ m.role }}{{ m.content }}<|end|>\n{% endfor %}", [2]),
        ("{% for m in messages %}{{ m.content }} {{ eos_token }}{% endfor %}<s>", [1]),
        ("{% for m in messages %}{{ m.content }}\nUser:{% endfor %}", [1]),
        # Qwen 1.5's first template ends a turn only if another follows; GLM's at the next role.
        (
            "{% for m in messages %}{{ m.content }}{% if not loop.last %}<|end|>{% endif %}"
            "{% endfor %}",
            [2],
        ),
        (
            "{% for m in messages %}{{ '<|end|>' if m.role == 'user' }}{{ m.content }}{% endfor %}",
            [2],
        ),
        ("{{ raise_exception('no') }}", [1]),
    ],
)
def test_a_turn_ends_with_what_the_template_puts_behind_it(template, ends):
    found = tokenizer_of(CONFIG | {"chat_template": template}).eos_ids
    assert found == sorted({1, *ends})


def test_what_begins_the_next_question_ends_an_answer_only_if_it_is_special():
    """An answer may have a heading with ###."""
    template = "{% for m in messages %}{{ '### ' if m.role == 'user' }}{{ m.content }}{% endfor %}"
    config = CONFIG | {"chat_template": template}
    model = tokenizer_of(config).model
    for add, ends in ((model.add_tokens, [1]), (model.add_special_tokens, [1, 3])):
        add(["###"])
        assert Tokenizer(model, config, "tokenizer.json").eos_ids == ends


def test_what_is_not_a_template_is_left_out() -> None:
    damaged = ["{{ x }}", {"name": ["a"], "template": "b"}, {"name": "c"}]
    assert templates_of([*damaged, {"name": "rag", "template": "{{ y }}"}]) == {"rag": "{{ y }}"}
    assert templates_of(3) == templates_of(damaged) == {}
