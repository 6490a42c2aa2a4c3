"""The error tree: every class is also the standard-library type it stands for."""


class DuologueError(Exception):
    """Base of every error that duologue raises on purpose."""


class ConfigError(DuologueError, ValueError):
    """A setting or an argument is unknown, of the wrong type or out of range."""


class WeightsError(DuologueError, ValueError):
    """A weights file is missing, truncated or does not fit: names the tensor, what was expected and what was found."""


class AudioError(DuologueError, ValueError):
    """Audio from outside cannot be used: not audio, empty, not finite, or of an unsupported rate or shape."""


class DeviceError(DuologueError, OSError):
    """A sound device failed or disappeared."""


class StreamError(DuologueError, RuntimeError):
    """A stream or session was used in a way its state does not allow (closed, wrong snapshot, wrong order)."""


class AlignError(DuologueError, RuntimeError):
    """Alignment cannot go on: something that it depends on, such as a judge's server, failed."""


class MissingExtraError(DuologueError, ImportError):
    """An optional package is not installed; the message names the extra that brings it."""

    def __init__(self, package: str, extra: str, *, is_alone: bool = False) -> None:
        """Name what is missing.

        Args:
            package: What is missing.
            extra: What brings it.
            is_alone: It is installed beside the extra, without its own dependencies.
        """
        beside = f" && pip install --no-deps {package}" if is_alone else ""
        super().__init__(f"{package} is not installed; install it with: pip install 'duologue[{extra}]'{beside}")
