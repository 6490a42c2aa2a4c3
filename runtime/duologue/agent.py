"""The agent: weights and wiring, no conversation state; every conversation is a `Session` of its own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

from safetensors import SafetensorError

from duologue.codec import MAX_THREADS, Mimi, MimiConfig
from duologue.config import AgentConfig, Sampling
from duologue.engine.base import StepEngine
from duologue.errors import ConfigError, WeightsError
from duologue.metrics.meter import InteractivityMeter
from duologue.model.adapters import open_adapters
from duologue.model.checkpoint import Checkpoint
from duologue.model.hub import resolve
from duologue.model.personaplex import Prompt
from duologue.model.tokenizer import Tokenizer
from duologue.prompt import load_prompt
from duologue.recorder import Recorder
from duologue.session import Session
from duologue.types import SAMPLE_RATE_HZ
from duologue.untrained import write_untrained_bundle

BUNDLED = Path(str(files("duologue") / "data" / "duologue-mini"))
"""Where the default agent lies in an installation that has it; its name loads it as it was before alignment."""
ALIGNED = "mini-aligned"
"""Folder in there of the adapter with which the default agent converses."""
UNTRAINED_NOTE = (
    "This agent is untrained: its weights are random, so it babbles. It shows the machinery, not a conversation."
)


class DuplexAgent:
    """A full-duplex speech model, ready for any number of conversations at once.

    Attributes:
        config: The settings it runs under.
        mimi: The codec's weights.
        engine: The language model, ready to step.
        sampling: How its sessions begin to draw tokens.
        adapter: Adapter of the sessions that name none, or None for the model as it is.
        note: What a listener should know about the weights; "" for a trained model.
    """

    def __init__(
        self,
        *,
        mimi: Mimi,
        engine: StepEngine,
        tokenizer: Tokenizer,
        config: AgentConfig,
        sampling: Sampling,
        prompt: Prompt | None = None,
        adapter: str | None = None,
        note: str = "",
    ) -> None:
        """Wire the parts together; see `load` for the usual way in."""
        self.config = config
        self.sampling = sampling
        self.adapter = adapter
        self.note = note
        self.mimi = mimi
        self.engine = engine
        self._tokenizer, self._prompt = tokenizer, prompt

    @classmethod
    def load(cls, name: str | Path | None = None, config: AgentConfig | None = None) -> DuplexAgent:
        """Load a bundle.

        Args:
            name: A folder in Moshi's format, `hf://owner/name`, None for the small default agent, or "duologue-mini"
                for that one as it was before alignment.
            config: How to run it.

        Raises:
            WeightsError: If a file is missing, truncated or does not fit the model.
            ConfigError: If the model or a setting is not supported.
            MissingExtraError: If the engine's package is not installed.
        """
        config = config or AgentConfig()
        folder = find_bundle(name, cache_folder(config))
        aligned = [folder / ALIGNED] if name is None and (folder / ALIGNED).is_dir() else []
        checkpoint = Checkpoint.open(folder)
        if checkpoint.mimi_path is None or checkpoint.tokenizer_path is None:
            missing = "codec weights (mimi_name)" if checkpoint.mimi_path is None else "tokenizer (tokenizer_name)"
            raise WeightsError(f"{checkpoint.path}: the folder has no {missing}; copy the file beside config.json")
        mimi_config = MimiConfig.from_file(checkpoint.mimi_config_path) if checkpoint.mimi_config_path else None
        codebooks = checkpoint.config.dep_q
        codec_threads = min(config.threads, MAX_THREADS)
        mimi = Mimi.load(
            checkpoint.mimi_path,
            num_codebooks=codebooks,
            config=mimi_config,
            threads=codec_threads,
            precision=config.codec_precision,
        )
        tokenizer = Tokenizer(checkpoint.tokenizer_path)
        prompt = load_prompt(
            checkpoint.config, tokenizer, mimi, text_prompt=config.text_prompt, voice_prompt=config.voice_prompt
        )
        return cls(
            mimi=mimi,
            engine=_load_engine(checkpoint, config, open_adapters(checkpoint, folder, [*aligned, *config.adapters])),
            tokenizer=tokenizer,
            config=config,
            sampling=config.sampling(checkpoint.sampling),
            prompt=prompt,
            adapter=ALIGNED if aligned else None,
            note=UNTRAINED_NOTE if name is None and not has_bundled_agent() else "",
        )

    def session(self, *, seed: int = 0, sample_rate_hz: int = SAMPLE_RATE_HZ, adapter: str | None = None) -> Session:
        """Open a conversation; the agent's prompts are prefilled in one pass.

        Args:
            seed: Same seed and same input give the same output, whatever the chunking.
            sample_rate_hz: Rate of the audio that `Session.feed` takes and returns.
            adapter: Name of one of `AgentConfig.adapters`, which is its folder's name; None is `DuplexAgent.adapter`.

        Raises:
            ConfigError: If the seed or the rate is out of range, there is no such adapter, or nothing can be recorded.
        """
        engine = self.engine.stream(seed=seed, sampling=self.sampling, adapter=adapter or self.adapter)
        if self._prompt is not None:
            engine.prefill(self._prompt.tokens, embeddings=self._prompt.embeddings)
        return Session(
            codec=self.mimi.stream(window=self.config.codec_window),
            engine=engine,
            tokenizer=self._tokenizer,
            meter=InteractivityMeter(
                user_detector=self.config.user_detector, agent_detector=self.config.agent_detector
            ),
            sample_rate_hz=sample_rate_hz,
            recorder=Recorder(self.config.record) if self.config.record is not None else None,
        )


def load(name: str | Path | None = None, **settings: object) -> DuplexAgent:
    """Load an agent with settings given by name, for example `load("hf://kyutai/moshiko", engine="torch")`.

    Raises:
        ConfigError: If a setting is unknown; otherwise as `DuplexAgent.load`.
    """
    return DuplexAgent.load(name, AgentConfig.from_dict(settings))


def cache_folder(config: AgentConfig) -> Path:
    """Return the folder for what can be built again: DUOLOGUE_CACHE, else the user's cache."""
    chosen = config.cache_dir or os.environ.get("DUOLOGUE_CACHE")
    return Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "duologue"


def has_bundled_agent() -> bool:
    """Return whether this installation has a trained default agent."""
    return (BUNDLED / "config.json").is_file()


def bundled_agent_facts() -> dict[str, str]:
    """Return what the default agent is called and, where it is trained, the SHA-256 of each of its weights files."""
    if not has_bundled_agent():
        return {"name": "untrained (seeded random weights)"}
    places = [path for path in sorted(BUNDLED.rglob("*")) if path.suffix in (".safetensors", ".model")]
    digests = {path.relative_to(BUNDLED).as_posix(): sha256(path.read_bytes()).hexdigest() for path in places}
    return {"name": BUNDLED.name} | digests


def find_bundle(name: str | Path | None, cache: Path) -> Path:
    """Return the folder or file of a model.

    Args:
        name: A path, `hf://owner/name`, or None or its name for the default agent.
        cache: As `default_bundle` takes it.

    Raises:
        ConfigError: As `default_bundle`.
        WeightsError: As `resolve`; MissingExtraError likewise.
    """
    is_default = name is None or (str(name) == BUNDLED.name and not Path(name).exists())
    return default_bundle(cache) if name is None or is_default else resolve(name)


def default_bundle(cache: Path) -> Path:
    """Return the folder of the default agent: the trained one, else a small untrained one, written on first use.

    Args:
        cache: Where the untrained one is kept.

    Raises:
        ConfigError: If the cache cannot be written.
    """
    if has_bundled_agent():
        return BUNDLED
    folder = cache / "untrained-1"
    if not (folder / "config.json").is_file():
        try:
            write_untrained_bundle(folder, seed=0)
        except (OSError, SafetensorError) as error:
            # Another process may have finished the same bundle first; its folder is as good as ours.
            if not (folder / "config.json").is_file():
                message = f"{cache}: cannot write there ({error}); set DUOLOGUE_CACHE to another folder"
                raise ConfigError(message) from error
    return folder


def _load_engine(checkpoint: Checkpoint, config: AgentConfig, adapters: Mapping[str, Checkpoint]) -> StepEngine:
    if config.engine == "torch":
        from duologue.engine.torch_engine import TorchEngine

        return TorchEngine.load(checkpoint, device=config.device, dtype=config.dtype, adapters=adapters)
    from duologue.engine.onnx_engine import OnnxEngine

    providers = ["CUDAExecutionProvider"] if config.device == "cuda" else None
    return OnnxEngine.load(
        checkpoint,
        threads=config.threads,
        cache_dir=cache_folder(config),
        providers=providers,
        adapters=adapters,
    )
