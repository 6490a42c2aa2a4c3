"""Sound in and out: files, sample rates."""

from duologue.audio.files import AudioFile, write_wav
from duologue.audio.resample import Resampler

__all__ = ["AudioFile", "Resampler", "write_wav"]
