"""PersonaPlex's own schedule against Moshi's, on one model.

PersonaPlex runs its model one frame late, with 16 depth slices of which the last 8 predict the user and are overwritten
by what the user said (moshi-family facts, 3.4). Claim tested here: Moshi's schedule with only the first 8 slices gives
the same agent, one call (80 ms) earlier.

Outcome: it holds exactly. On random models, over prompts and 300 live frames each, every text token and agent code is
identical, frame for frame, returned one call earlier; and the logits that PersonaPlex's schedule sampled from equal the
8-slice model's teacher-forced logits within 1e-5.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("moshi")

import lm_cases  # noqa: E402
from duologue.config import Sampling  # noqa: E402
from duologue.engine.torch_engine import TorchEngine, TorchStepStream  # noqa: E402
from duologue.model.config import LMConfig  # noqa: E402
from duologue.model.layout import with_slices  # noqa: E402
from duologue.model.load import load_model  # noqa: E402
from duologue.model.personaplex import SILENCE_CODES, SINE_CODES, make_prompt  # noqa: E402
from duologue.model.voice_file import read_voice  # noqa: E402

LIVE_FRAMES = 300
PAD = 3
ROLE = [11, 12, 13, 14, 15]
# Prompt codes go up to 2008, so the codec must have its released size; the rest is tiny.
CONFIG = replace(
    lm_cases.MOSHI_LIKE, card=2048, dim=16, num_heads=2, num_layers=2, context=100, hidden_scale=3.0, text_card=60
)
GREEDY = Sampling(temperature_text=0, temperature_audio=0, top_k_text=1, top_k_audio=1)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


class LaggedSchedule:
    """PersonaPlex's step, slowly: call n shows position n - 1 and fills position n where nobody provided a token."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.delays = model.delays
        self.columns = max(self.delays) + 3
        self.cache = torch.full((1, model.num_codebooks, self.columns), -2)
        self.provided = torch.zeros(1, model.num_codebooks, self.columns, dtype=torch.bool)
        self.initial = model._get_initial_token()[:, :, 0]
        self.calls = 0
        self.logits: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self.embeddings: list[torch.Tensor] = []

    def provide(self, stream: int, token: int) -> None:
        column = (self.calls + self.delays[stream]) % self.columns
        self.cache[0, stream, column] = token
        self.provided[0, stream, column] = True

    def step(
        self, *, text: int | None = None, agent: Any = None, user: Any = None, embedding: torch.Tensor | None = None
    ) -> np.ndarray | None:
        streams = {0: text} if text is not None else {}
        streams |= {} if agent is None else {1 + k: int(code) for k, code in enumerate(agent)}
        streams |= {} if user is None else {9 + k: int(code) for k, code in enumerate(user)}
        for stream, token in streams.items():
            self.provide(stream, token)
        for stream, delay in enumerate(self.delays):
            if self.calls <= delay:
                self.cache[:, stream, self.calls % self.columns] = self.initial[:, stream]
                self.provided[:, stream, self.calls % self.columns] = True
        if self.calls == 0:
            self.cache[:, :, 0] = self.initial
            self.calls += 1
            return None
        source, target = (self.calls - 1) % self.columns, self.calls % self.columns
        hidden, text_logits = self.forward(self.cache[:, :, source : source + 1].clone(), embedding)
        self.sample(hidden, text_logits[0, 0, 0], target)
        self.provided[:, :, source] = False
        out = None
        if self.calls > max(self.delays):
            first = self.calls - max(self.delays)
            out = np.array([int(self.cache[0, k, (first + self.delays[k]) % self.columns]) for k in range(9)])
        self.calls += 1
        return out

    def forward(self, tokens: torch.Tensor, embedding: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        if embedding is None:
            summed = [self.model.emb[k](tokens[:, k + 1]) for k in range(self.model.n_q)]
            embedding = torch.stack(summed).sum(0) + self.model.text_emb(tokens[:, 0])
        self.embeddings.append(embedding)
        hidden = self.model.out_norm(self.model.transformer(embedding))
        return hidden, self.model.text_linear(hidden)[:, None]

    def sample(self, hidden: torch.Tensor, text_logits: torch.Tensor, target: int) -> None:
        given, cache = self.provided[0, :, target], self.cache[0, :, target]
        if not given[0]:
            cache[0] = text_logits.argmax()
        previous, audio_logits = cache[0], []
        with self.model.depformer.streaming(1):
            for k in range(self.model.dep_q):
                logits = self.model.forward_depformer(k, previous.view(1, 1, 1), hidden)[0, 0, 0]
                audio_logits.append(logits)
                if not given[1 + k]:
                    cache[1 + k] = logits.argmax()
                previous = cache[1 + k]
        self.logits[self.calls] = (text_logits, torch.stack(audio_logits))


def models(tmp_path: Path, seed: int) -> tuple[Any, TorchEngine, LMConfig]:
    full = with_slices(CONFIG, 16)
    reference = lm_cases.moshi_model(full, seed=seed, gain=2.0)
    checkpoint = lm_cases.checkpoint_of(reference, full, tmp_path / "model.safetensors")
    assert checkpoint.config.dep_q == 8
    return reference, TorchEngine(load_model(checkpoint)), checkpoint.config


def lagged_prompt(schedule: LaggedSchedule, voice: np.ndarray | None) -> None:
    for codes in voice.T if voice is not None else ():
        schedule.step(text=PAD, agent=codes, user=SINE_CODES)
    for text in [PAD] * 6 + ROLE + [PAD] * 6:
        schedule.step(text=text, agent=SILENCE_CODES, user=SINE_CODES)


def talk(schedule: LaggedSchedule, stream: TorchStepStream, users: np.ndarray) -> list[np.ndarray]:
    """Let both talk to the same user; compare call n + 1 of PersonaPlex's schedule with call n of Moshi's."""
    ours = []
    for index, user in enumerate(users):
        output = stream.step(user.astype(np.int32))
        assert output.agent_codes is not None
        ours.append(np.concatenate([[output.text_token], output.agent_codes]))
        lagged = schedule.step(user=user)
        assert lagged is not None
        if index > 0:
            assert np.array_equal(lagged, ours[index - 1]), index
    return ours


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("seed", [0, 1])
@torch.no_grad()
def test_eight_slices_on_moshis_schedule_give_the_same_agent_one_call_earlier(seed: int, tmp_path: Path) -> None:
    reference, engine, config = models(tmp_path, seed)
    random = np.random.default_rng(seed)
    voice = random.integers(0, config.card, (8, 20))
    users = random.integers(0, config.card, (LIVE_FRAMES, 8))
    stream, schedule = engine.stream(seed=0, sampling=GREEDY), LaggedSchedule(reference)
    prompt = make_prompt(config, role_tokens=ROLE, voice_codes=voice)
    with reference.streaming(1):
        lagged_prompt(schedule, voice)
        stream.prefill(prompt.tokens)
        frames = talk(schedule, stream, users)
    assert len({tuple(frame) for frame in frames}) > LIVE_FRAMES // 2

    # The distributions, not only the tokens: teacher-force the whole conversation through the 8-slice model.
    agent = np.concatenate([prompt.tokens[:, :9], np.stack(frames)])
    codes = np.concatenate([agent, np.concatenate([prompt.tokens[:, 9:], users])], axis=1)[1:-1]
    output = engine.model(torch.from_numpy(codes.T.copy())[None])
    largest = 0.0
    for position, (text, audio) in schedule.logits.items():
        if position > len(codes):
            continue
        # A training sequence begins with frame 1, which has no delay at position 1.
        largest = max(largest, float((output.text_logits[0, 0, position - 1] - text).abs().max()))
        for k in range(8):
            frame = position - config.delays[1 + k]
            if frame >= 1:
                largest = max(largest, float((output.logits[0, k, frame - 1] - audio[k]).abs().max()))
    assert largest <= 1e-5


@torch.no_grad()
def test_without_a_voice_the_prompt_is_silence_role_silence(tmp_path: Path) -> None:
    reference, engine, config = models(tmp_path, 2)
    stream, schedule = engine.stream(seed=0, sampling=GREEDY), LaggedSchedule(reference)
    with reference.streaming(1):
        lagged_prompt(schedule, None)
        stream.prefill(make_prompt(config, role_tokens=ROLE).tokens)
        talk(schedule, stream, np.random.default_rng(0).integers(0, config.card, (40, 8)))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@torch.no_grad()
def test_voice_files_continue_as_in_personaplex(dtype: str, tmp_path: Path) -> None:
    """A voice is recorded by the lagged schedule, saved by torch, and replayed by both."""
    reference, engine, config = models(tmp_path, 3)
    voice = np.random.default_rng(1).integers(0, config.card, (8, 20))
    recorder = LaggedSchedule(reference)
    with reference.streaming(1):
        for codes in voice.T:
            recorder.step(text=PAD, agent=codes, user=SINE_CODES)
    saved = torch.stack(recorder.embeddings)[:, :, :, None, :][:, 0].to(getattr(torch, dtype))
    assert saved.shape == (19, 1, 1, config.dim)
    torch.save({"embeddings": saved, "cache": recorder.cache}, tmp_path / "voice.pt")

    prompt = make_prompt(config, role_tokens=ROLE, voice=read_voice(tmp_path / "voice.pt", config))
    assert prompt.tokens.shape == (20 + 12 + len(ROLE), 17)
    stream, schedule = engine.stream(seed=0, sampling=GREEDY), LaggedSchedule(reference)
    with reference.streaming(1):
        for index, embedding in enumerate(saved.float()):
            if index == 0:
                schedule.step(text=PAD, agent=SILENCE_CODES, user=SINE_CODES)
            schedule.step(text=PAD, agent=SILENCE_CODES, user=SINE_CODES, embedding=embedding)
        schedule.cache.copy_(recorder.cache)
        lagged_prompt(schedule, None)
        stream.prefill(prompt.tokens, embeddings=prompt.embeddings)
        talk(schedule, stream, np.random.default_rng(0).integers(0, config.card, (60, 8)))
