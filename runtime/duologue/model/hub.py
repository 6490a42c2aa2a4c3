"""Model folders and files by name: a local path or `hf://owner/name` through the Hugging Face cache."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from duologue.errors import MissingExtraError, WeightsError

PREFIX = "hf://"
_PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_REPO = re.compile(rf"({_PART}/{_PART})(?:@([A-Za-z0-9][A-Za-z0-9._/-]{{0,95}}))?\Z")
_PATTERNS = ["*.json", "*.safetensors", "*.model", "*.onnx", "voices/*", "voices.tgz"]


def resolve(name: str | Path) -> Path:
    """Return the local folder or file that a model name stands for.

    Args:
        name: A path, or `hf://owner/name`, optionally `hf://owner/name@revision`. A model already in the Hugging
            Face cache is found without a network; HF_HOME and HF_HUB_OFFLINE are honoured.

    Raises:
        WeightsError: There is no such path or repository, or it cannot be fetched.
        MissingExtraError: `hf://` is used and huggingface_hub is not installed.
    """
    text = str(name)
    if not text.startswith(PREFIX):
        path = Path(name).expanduser()
        if not path.exists():
            raise WeightsError(f"no model at {path}; give a folder with config.json, or hf://owner/name")
        return path
    match = _REPO.match(text.removeprefix(PREFIX))
    if match is None or ".." in text:
        raise WeightsError(f"{text!r} is not of the form hf://owner/name or hf://owner/name@revision")
    return _snapshot(match[1], match[2])


def fetch_file(name: str) -> Path:
    """Return the local copy of `hf://owner/name/file`, as a config.json may name a file of another repository.

    Raises:
        WeightsError: The name is malformed or the file cannot be fetched.
        MissingExtraError: huggingface_hub is not installed.
    """
    parts = name.removeprefix(PREFIX).split("/", 2)
    is_safe = len(parts) == 3 and ".." not in name and not parts[2].startswith("/")
    if not is_safe or _REPO.match("/".join(parts[:2])) is None:
        raise WeightsError(f"{name!r} is not of the form hf://owner/name/file")
    hub = _hub()
    try:
        return Path(hub.hf_hub_download("/".join(parts[:2]), parts[2]))
    except Exception as error:
        raise WeightsError(_cannot_fetch(name, error)) from error


def _snapshot(repo: str, revision: str | None) -> Path:
    hub = _hub()
    try:
        return Path(hub.snapshot_download(repo, revision=revision, allow_patterns=_PATTERNS))
    except Exception as error:
        raise WeightsError(_cannot_fetch(PREFIX + repo, error)) from error


def _hub() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise MissingExtraError("huggingface_hub", "hub") from error
    return huggingface_hub


def _cannot_fetch(name: str, error: Exception) -> str:
    first_line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return f"cannot fetch {name}: {first_line}; check the name, the network, and HF_TOKEN for a gated model"
