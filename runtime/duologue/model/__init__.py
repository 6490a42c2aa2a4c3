"""The Moshi-family language model: its configuration, its files, and (with torch) its definition."""

from duologue.model.checkpoint import Checkpoint
from duologue.model.config import LMConfig
from duologue.model.hub import resolve

__all__ = ["Checkpoint", "LMConfig", "resolve"]
