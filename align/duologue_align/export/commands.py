"""The command `export`."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from duologue.errors import MissingExtraError


def add_commands(commands: Any) -> None:
    """Add the command to an argument parser's subparsers."""
    parser = commands.add_parser(
        "export",
        help="turn what training left into a bundle that the runtime and moshi load",
        description="Merge an adapter into its base, or write it as a folder the runtime switches to.",
    )
    parser.add_argument(
        "source", type=Path, metavar="SOURCE", help="a training run, an adapter (peft or moshi), or a model folder"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to; a bundle there is replaced")
    parser.add_argument(
        "--base", type=Path, metavar="DIR", help="model of the adapter (default: the run's, else the default agent)"
    )
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16", help="default: bfloat16")
    parser.add_argument("--lora-only", action="store_true", help="write the adapter alone, for AgentConfig.adapters")
    parser.add_argument("--json", action="store_true", help="print what was written as JSON")
    parser.set_defaults(command=_export)


def _export(options: argparse.Namespace) -> int:
    try:
        from duologue_align.export.bundle import export_adapter, export_model, open_source
    except ImportError as error:
        raise MissingExtraError("torch", "align") from error

    checkpoint = open_source(options.source, options.base or _base_of(options.source))
    write = export_adapter if options.lora_only else export_model
    folder = write(checkpoint, options.out, dtype=options.dtype)
    files = {path.name: _facts(path) for path in sorted(folder.iterdir())}
    if options.json:
        sys.stdout.write(json.dumps({"folder": str(folder), "files": files}) + "\n")
        return 0
    for name, facts in files.items():
        sys.stdout.write(f"{folder / name}  {facts['bytes'] / 1e6:.2f} MB  sha256 {facts['sha256']}\n")
    how = f"AgentConfig(adapters=({str(folder)!r},))" if options.lora_only else f"--agent {folder}"
    sys.stdout.write(f"use it with {how}\n")
    return 0


def _base_of(source: Path) -> Path:
    """Return the model that a training run began with, or else the default agent."""
    from duologue.agent import cache_folder, find_bundle
    from duologue.config import AgentConfig
    from duologue.model.folder import read_json

    settings = source / "settings.json"
    model = read_json(settings).get("model") if settings.is_file() else ""
    return find_bundle(model or None, cache_folder(AgentConfig()))


def _facts(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
