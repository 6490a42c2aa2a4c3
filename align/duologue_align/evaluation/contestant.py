"""Who is evaluated: an agent with the digest of its weights, by which finished work is recognised."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from duologue.agent import DuplexAgent, cache_folder, find_bundle
from duologue.config import AgentConfig

AGENT, BASE, HUMAN = "agent", "base", "recorded human"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """An agent in an evaluation.

    Attributes:
        name: Its name in the report: "agent", or "base" for what it was aligned from.
        agent: The agent.
        signature: Digest of weights and settings; "" for an agent whose takes are never reused.
        label: Where it is from.
    """

    name: str
    agent: DuplexAgent
    signature: str = ""
    label: str = ""

    @classmethod
    def load(cls, name: str, source: str | Path | None = None, config: AgentConfig | None = None) -> Contestant:
        """Load a bundle.

        Args:
            name: Its name in the report.
            source: A folder or `hf://owner/name`; None is the default agent.
            config: How to run it.

        Raises:
            WeightsError: As `DuplexAgent.load`.
            ConfigError: Likewise.
            MissingExtraError: Likewise.
        """
        # Activity is measured here, by one rule for all; the session's own meter need not run a network for it.
        settings = replace(config or AgentConfig(), user_detector="level")
        agent = DuplexAgent.load(source, settings)
        folder = find_bundle(source, cache_folder(settings))
        facts = [
            [path.relative_to(folder).as_posix(), path.stat().st_size, path.stat().st_mtime_ns]
            for path in sorted(Path(folder).rglob("*"))
            if path.is_file()
        ]
        content = json.dumps([facts, asdict(replace(settings, cache_dir=None))])
        digest = hashlib.sha256(content.encode()).hexdigest()[:16]
        return cls(name=name, agent=agent, signature=digest, label="default agent" if source is None else str(source))
