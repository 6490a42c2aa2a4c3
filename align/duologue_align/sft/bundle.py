"""Write what the runtime loads: a complete Moshi-format folder with model, codec, tokenizer and step graph."""

from __future__ import annotations

import copy
import logging
import shutil
from pathlib import Path

from duologue.config import Sampling
from duologue.errors import ConfigError, MissingExtraError
from duologue.model.checkpoint import Checkpoint, generation_keys
from duologue.model.lm import LanguageModel
from duologue.model.load import parse_dtype
from duologue.model.save import save_checkpoint
from duologue.replacing import replacing_folder
from duologue_align.sft.shards import MIMI, MIMI_CONFIG, TOKENIZER

_log = logging.getLogger(__name__)


def write_bundle(
    model: LanguageModel,
    codes_folder: str | Path,
    folder: str | Path,
    *,
    dtype: str = "float32",
    sampling: Sampling | None = None,
) -> Path:
    """Write a bundle; one that is there already is replaced at once.

    Args:
        model: The language model.
        codes_folder: Folder of encoded dialogues, for codec and tokenizer.
        folder: Where to.
        dtype: Type of the language model's weights, "float32" or "bfloat16".
        sampling: How the model is to be sampled; None for moshi's defaults.

    Returns:
        The folder.

    Raises:
        ConfigError: The folder holds something that is not a bundle, or cannot be written.
    """
    source, target = Path(codes_folder), Path(folder)
    try:
        with replacing_folder(target, marker="config.json") as fresh:
            names = {"mimi_name": MIMI, "mimi_config_name": MIMI_CONFIG, "tokenizer_name": TOKENIZER}
            converted = copy.deepcopy(model).to("cpu", parse_dtype(dtype))
            save_checkpoint(
                converted, fresh, extra={"model_type": "moshi", **names, **generation_keys(sampling or Sampling())}
            )
            for name in names.values():
                shutil.copyfile(source / name, fresh / name)
            add_step_graph(fresh)
    except OSError as error:
        raise ConfigError(f"{target}: cannot write the bundle ({error.strerror}); give another folder") from error
    return target


def add_step_graph(folder: Path) -> None:
    """Write step.onnx into a bundle; without the `onnx` package a warning is logged instead."""
    from duologue.engine.onnx_engine import write_step_graph

    try:
        write_step_graph(Checkpoint.open(folder))
    except MissingExtraError as error:
        _log.warning("step.onnx is left out, the runtime builds it at first use: %s", error)
