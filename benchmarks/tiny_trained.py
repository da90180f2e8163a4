"""A tiny Llama trained for minutes on the text that calibrates: it writes like that.

What is random writes one token again and again, whatever strikes it; this one answers each prompt
in its own way, and groups of 256 fit it.
"""

from pathlib import Path

import tokenizers
import torch
import transformers

from quatrain.quantize.calibration import DEFAULT_TEXT

_VOCABULARY, _LENGTH, _BATCH, _STEPS = 1024, 320, 4, 200


def write_tiny_trained(folder: Path) -> None:
    """Write the model and its tokenizer into `folder`, as Hugging Face has them."""
    text = DEFAULT_TEXT.read_text(encoding="utf-8")
    words = _tokenizer(text)
    ids = torch.tensor(words.encode(text).ids)
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(_config())
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, _STEPS)
    for step in range(_STEPS):
        starts = torch.randint(len(ids) - _LENGTH, (_BATCH,)).tolist()
        batch = torch.stack([ids[start : start + _LENGTH] for start in starts])
        loss = model(input_ids=batch, labels=batch).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            print(f"step {step}: {loss.item():.2f} nats a token", flush=True)
    model.save_pretrained(folder)
    words.save(str(folder / "tokenizer.json"))


def _config() -> transformers.LlamaConfig:
    return transformers.LlamaConfig(
        vocab_size=_VOCABULARY, hidden_size=256, intermediate_size=512, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
        bos_token_id=None, eos_token_id=None, tie_word_embeddings=False,
    )  # fmt: skip


def _tokenizer(text: str) -> tokenizers.Tokenizer:
    words = tokenizers.Tokenizer(tokenizers.models.BPE())
    words.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=_VOCABULARY, initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet()
    )
    words.train_from_iterator([text], trainer)
    return words
