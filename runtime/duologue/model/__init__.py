"""The Moshi-family language model: its configuration, its files, and (with torch) its definition."""

from duologue.model.config import LMConfig

__all__ = ["LMConfig"]
