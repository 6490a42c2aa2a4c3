"""A language model behind an OpenAI-compatible endpoint as a judge: vLLM, llama.cpp's server, Ollama, or a service."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import re
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from duologue.errors import AlignError, ConfigError
from duologue_align.judge.completions import CompletionsClient, PassingError, Patience
from duologue_align.judge.judge import Answer, Traits, language_model_abilities, require
from duologue_align.judge.rating import Scale
from duologue_align.judge.score_cache import ScoreCache, content_key

URL_VARIABLE, MODEL_VARIABLE = "DUOLOGUE_JUDGE_URL", "DUOLOGUE_JUDGE_MODEL"

_logger = logging.getLogger(__name__)
_SIZE = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)([bm])(?![a-z0-9])", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where a judge is and how it is asked.

    Attributes:
        url: Root of the API, such as http://localhost:8000/v1; empty takes it from DUOLOGUE_JUDGE_URL.
        model: Name of the model there; empty takes it from DUOLOGUE_JUDGE_MODEL.
        key_variable: Environment variable that holds the API key; none is sent where it is not set.
        parameters_b: Billions of parameters; 0 reads them from the model's name ("qwen2.5-7b"), if they are in it.
        concurrency: Requests at a time.
        log_probs: Whether to ask for the probabilities of the first token, which make the rating a mean; servers that
            do not give them are read by their text.
        longest_answer: Tokens of an answer at most; raise it for models that think aloud first.
        force: Let a model rate that is too small for it.
    """

    url: str = ""
    model: str = ""
    key_variable: str = "OPENAI_API_KEY"
    parameters_b: float = 0.0
    concurrency: int = 8
    log_probs: bool = True
    longest_answer: int = 8
    force: bool = False
    patience: Patience = field(default_factory=Patience)
    scale: Scale = field(default_factory=Scale)

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ConfigError: A number below what makes sense.
        """
        if self.concurrency < 1 or self.longest_answer < 1 or self.parameters_b < 0:
            raise ConfigError(
                "an endpoint's concurrency and longest_answer must be at least 1 and parameters_b not below 0, not "
                f"{self.concurrency}, {self.longest_answer} and {self.parameters_b}"
            )


class EndpointJudge:
    """Rates answers by asking a server, several at a time; each exchange once where scores are kept on disk."""

    def __init__(self, endpoint: Endpoint, *, cache: ScoreCache | None = None, keep_going: bool = False) -> None:
        """Prepare to ask; nothing is sent yet.

        Args:
            endpoint: Where and how.
            cache: Where scores are kept.
            keep_going: Give nan for an answer that the server fails on, and log it, instead of raising.

        Raises:
            ConfigError: No address or model is given, or the model is too small to rate.
        """
        url, model = endpoint.url or os.environ.get(URL_VARIABLE, ""), endpoint.model or os.environ.get(MODEL_VARIABLE)
        if not url or not model:
            raise ConfigError(f"no judge endpoint is set; set {URL_VARIABLE} and {MODEL_VARIABLE}, or url and model")
        self._endpoint, self._model, self._cache, self._keep_going = endpoint, model, cache, keep_going
        key = os.environ.get(endpoint.key_variable)
        self._client = CompletionsClient(url, key=key, patience=endpoint.patience)
        self.requests = 0
        require(self.traits, force=endpoint.force)

    @property
    def traits(self) -> Traits:
        """What it can do; only ratings, as servers do not agree on how the log-probability of a given text is had."""
        size = self._endpoint.parameters_b * 1e9 or size_in_name(self._model)
        return Traits(
            name=self._model,
            gives="rating",
            can=language_model_abilities(size) - {"log_prob_difference", "fluency"},
            batch=self._endpoint.concurrency,
            cost="request",
            parameters=size,
        )

    def score(self, answers: Sequence[Answer]) -> list[float]:
        """Return a rating on the scale for each answer; not from within a running event loop, see `score_async`.

        Raises:
            AlignError: The server refused, or failed too often (unless told to keep going).
        """
        return asyncio.run(self.score_async(answers))

    async def score_async(self, answers: Sequence[Answer]) -> list[float]:
        """Return what `score` does; raises as it."""
        wanted = {self._key(answer): answer for answer in answers}
        known = {key: None if self._cache is None else self._cache.get(key) for key in wanted}
        missing = [(key, answer) for key, answer in wanted.items() if known[key] is None]
        with ThreadPoolExecutor(self._endpoint.concurrency, thread_name_prefix="judge") as executor:
            room = asyncio.Semaphore(self._endpoint.concurrency)
            tasks = [asyncio.create_task(self._ask(key, answer, room, executor)) for key, answer in missing]
            try:
                found = await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
        scores = known | dict(zip((key for key, _ in missing), found, strict=True))
        return [math.nan if (score := scores[self._key(answer)]) is None else score for answer in answers]

    async def _ask(self, key: str, answer: Answer, room: asyncio.Semaphore, executor: Executor) -> float:
        try:
            async with room:
                self.requests += 1
                body = self._body(answer)
                score = float(await self._client.post("/chat/completions", body, self._read, executor))
        except AlignError as error:
            if not self._keep_going:
                raise
            _logger.warning("an answer is left unjudged: %s", error)
            return math.nan
        if self._cache is not None:
            self._cache.put(key, score)
        return score

    def _body(self, answer: Answer) -> dict[str, Any]:
        asked = {"logprobs": True, "top_logprobs": 20} if self._endpoint.log_probs else {}
        return {
            "model": self._model,
            "messages": self._endpoint.scale.messages(answer),
            "temperature": 0.0,
            "max_tokens": self._endpoint.longest_answer,
            **asked,
        }

    def _key(self, answer: Answer) -> str:
        return content_key([self._client.url, self._body(answer), self._endpoint.scale.digits])

    def _read(self, answer: Any) -> float:
        scale = self._endpoint.scale
        try:
            choice = answer["choices"][0]
            text = choice["message"]["content"]
            if not isinstance(text, str):
                raise TypeError
        except (LookupError, TypeError) as error:
            raise PassingError("the answer is no chat completion") from error
        mean = scale.expect(_first_token(choice)) if text.strip()[:1].isdigit() else None
        rating = scale.read(text) if mean is None else mean
        if rating is None:
            raise PassingError(f"the answer holds no number from {scale.lowest} to {scale.highest} ({text[:60]!r})")
        return rating


def size_in_name(model: str) -> float | None:
    """Return the number of parameters that a model's name states ("Qwen2.5-0.5B-Instruct": 5e8), or None."""
    found = _SIZE.search(re.sub(r"[_/:]", "-", model))
    return None if found is None else float(found[1]) * {"b": 1e9, "m": 1e6}[found[2].lower()]


def _first_token(choice: Any) -> list[tuple[str, float]]:
    try:
        tops = choice["logprobs"]["content"][0]["top_logprobs"]
        return [(str(top["token"]), min(0.0, float(top["logprob"]))) for top in tops]
    except (LookupError, TypeError, ValueError):
        return []
