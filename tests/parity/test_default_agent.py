"""The agent that comes with the package, trained or not: it loads in moshi 0.2.13 and says the same there."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("moshi")

import duologue  # noqa: E402
from duologue.agent import cache_folder, default_bundle, has_bundled_agent  # noqa: E402
from duologue.audio import AudioFile  # noqa: E402
from duologue.config import AgentConfig, Sampling  # noqa: E402
from duologue.model.checkpoint import Checkpoint  # noqa: E402
from duologue.types import FRAME_SAMPLES  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
FRAMES, MAX_WHEEL_MB = 40, 45


def test_greedy_tokens_are_moshis_on_the_bundled_user(demo_user: Path) -> None:
    from moshi.models.lm import LMGen
    from moshi.models.loaders import CheckpointInfo

    torch.set_num_threads(1)
    folder, agent = default_bundle(cache_folder(AgentConfig())), duologue.load()
    names = json.loads((folder / "config.json").read_text())
    info = CheckpointInfo.from_hf_repo(
        "local/folder",
        moshi_weights=folder / names["moshi_name"],
        mimi_weights=folder / names["mimi_name"],
        tokenizer=folder / names["tokenizer_name"],
        config_path=folder / "config.json",
        mimi_config_path=folder / names["mimi_config_name"],
    )
    mimi, model = info.get_mimi("cpu"), info.get_moshi("cpu", torch.float32)
    assert info.get_text_tokenizer().get_piece_size() == model.text_card
    ours, said, agreeing = agent.mimi.stream(), 0, 0
    stream = agent.engine.stream(seed=0, sampling=Sampling(temperature_text=0, temperature_audio=0))
    generator = LMGen(model, use_sampling=False)
    with AudioFile(demo_user) as user, torch.no_grad(), mimi.streaming(1), generator.streaming(1):
        for frame, _ in zip(user.frames(FRAME_SAMPLES), range(FRAMES), strict=False):
            codes = ours.encode_step(frame)
            theirs = mimi.encode(torch.from_numpy(frame)[None, None])[0, :, 0].numpy()
            agreeing += int((codes == theirs).sum())
            expected = generator.step(torch.from_numpy(codes.astype(np.int64))[None, :, None])
            found = stream.step(codes)
            if expected is not None and found.agent_codes is not None:
                assert [found.text_token, *found.agent_codes.tolist()] == expected[0, :, 0].tolist()
                said += 1
    assert said == FRAMES - agent.engine.config.max_delay
    # Two codes may be equally near.
    assert agreeing >= 0.99 * FRAMES * len(codes)


def test_the_package_fits_a_wheel() -> None:
    package = Path(duologue.__file__).parent
    files = [path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert sum(len(zlib.compress(path.read_bytes())) for path in files) <= MAX_WHEEL_MB * 1e6


@pytest.mark.skipif(not has_bundled_agent(), reason="the default agent of this checkout is untrained")
def test_the_trained_agent_is_complete_and_small() -> None:
    folder = default_bundle(cache_folder(AgentConfig()))
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    weights = {"model.safetensors", "mimi.safetensors", "tokenizer.model"}
    aligned = {"mini-aligned/config.json", "mini-aligned/lora.safetensors"}
    assert files == {"config.json", "mimi_config.json", "step.onnx", "MODEL_CARD.md", *weights, *aligned}
    stored = Checkpoint.open(folder)
    assert {ref.dtype for ref in stored.tensors.values()} == {"BF16"}
