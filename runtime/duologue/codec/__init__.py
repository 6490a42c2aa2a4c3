"""The Mimi codec over the native module, and the reference codecs behind the same verbs."""

from duologue.codec.config import MimiConfig
from duologue.codec.mimi import MAX_THREADS, Mimi, MimiStream, Precision, Window

__all__ = ["MAX_THREADS", "Mimi", "MimiConfig", "MimiStream", "Precision", "Window"]
