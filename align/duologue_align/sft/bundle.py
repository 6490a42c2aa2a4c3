"""Write what the runtime loads: a complete Moshi-format folder with model, codec, tokenizer and step graph."""

from __future__ import annotations

import copy
import logging
import shutil
import tempfile
from pathlib import Path

from duologue.errors import ConfigError, MissingExtraError
from duologue.model.checkpoint import Checkpoint
from duologue.model.lm import LanguageModel
from duologue.model.load import parse_dtype
from duologue.model.save import save_checkpoint
from duologue_align.sft.shards import MIMI, MIMI_CONFIG, TOKENIZER

_log = logging.getLogger(__name__)


def write_bundle(model: LanguageModel, codes_folder: str | Path, folder: str | Path, *, dtype: str = "float32") -> Path:
    """Write a bundle; one that is there already is replaced at once.

    Args:
        model: The language model.
        codes_folder: Folder of encoded dialogues, for codec and tokenizer.
        folder: Where to.
        dtype: Type of the language model's weights, "float32" or "bfloat16".

    Returns:
        The folder.

    Raises:
        ConfigError: The folder holds something that is not a bundle, or cannot be written.
    """
    source, target = Path(codes_folder), Path(folder)
    if target.exists() and not (target / "config.json").is_file() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"{target} exists and is not a bundle; choose another folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        fresh = work / "bundle"
        names = {"mimi_name": MIMI, "mimi_config_name": MIMI_CONFIG, "tokenizer_name": TOKENIZER}
        converted = copy.deepcopy(model).to("cpu", parse_dtype(dtype))
        save_checkpoint(converted, fresh, extra={"model_type": "moshi", **names})
        for name in names.values():
            shutil.copyfile(source / name, fresh / name)
        _write_step_graph(fresh)
        for path in fresh.iterdir():
            path.chmod(0o644)
        if target.exists():
            target.rename(work / "old")
        fresh.rename(target)
    except OSError as error:
        raise ConfigError(f"{target}: cannot write the bundle ({error.strerror}); give another folder") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def _write_step_graph(folder: Path) -> None:
    from duologue.engine.onnx_engine import write_step_graph

    try:
        write_step_graph(Checkpoint.open(folder))
    except MissingExtraError as error:
        _log.warning("step.onnx is left out, the runtime builds it at first use: %s", error)
