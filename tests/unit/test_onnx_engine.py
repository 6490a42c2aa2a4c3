"""The ONNX engine by itself: state, files, threads, memory. Its agreement with moshi and torch is in tests/parity."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from duologue.config import Sampling
from duologue.engine import onnx_engine
from duologue.engine.base import StepEngine, StepStream
from duologue.engine.onnx_engine import OnnxEngine, write_step_graph
from duologue.errors import ConfigError, MissingExtraError, StreamError
from duologue.model.checkpoint import Checkpoint
from duologue.model.config import LMConfig
from duologue.model.layout import linear_slots, with_slices
from duologue.types import StepOutput
from duologue.untrained import random_weights
from lm_cases import MOSHI_LIKE

TINY = replace(
    MOSHI_LIKE,
    num_layers=2,
    n_q=4,
    dep_q=2,
    delays=(0, 0, 1, 0, 1),
    context=8,
    hidden_scale=3.0,
    depformer_dim_feedforward=48,
)
GREEDY = Sampling(temperature_text=0, temperature_audio=0)


def write_model(folder: Path, config: LMConfig = TINY, *, dtype: Any = np.float32, shards: int = 1) -> Checkpoint:
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: values.astype(dtype) for name, values in random_weights(config, seed=3).items()}
    if shards == 1:
        save_file(weights, folder / "model.safetensors")
    else:
        places = {name: f"model-{index % shards}.safetensors" for index, name in enumerate(sorted(weights))}
        for place in set(places.values()):
            save_file({name: weights[name] for name in weights if places[name] == place}, folder / place)
        index = {"weight_map": places}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(config.to_dict()), encoding="utf-8")
    return Checkpoint.open(folder)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return write_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def engine(checkpoint: Checkpoint) -> OnnxEngine:
    return OnnxEngine.load(checkpoint)


def user_frames(count: int, config: LMConfig = TINY, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, config.card, (count, config.user_q), dtype=np.int32)


def run(stream: StepStream, frames: np.ndarray) -> list[StepOutput]:
    return [stream.step(frame) for frame in frames]


def tokens(outputs: list[StepOutput]) -> list[tuple[int, ...]]:
    return [(item.text_token, *(() if item.agent_codes is None else item.agent_codes.tolist())) for item in outputs]


def random_prompt(frames: int, config: LMConfig = TINY, *, seed: int = 5) -> np.ndarray:
    limits = [config.text_card] + [config.card] * config.n_q
    return np.random.default_rng(seed).integers(0, limits, (frames, config.num_streams))


def test_is_a_step_engine(engine: OnnxEngine) -> None:
    assert isinstance(engine, StepEngine)
    assert engine.stream(seed=1).sampling == Sampling()


def test_first_call_returns_no_codes(engine: OnnxEngine) -> None:
    first, second = run(engine.stream(seed=1), user_frames(2))
    assert first.agent_codes is None
    assert first.text_token == TINY.existing_text_padding_id
    assert second.agent_codes is not None
    assert second.agent_codes.dtype == np.int32
    assert second.agent_codes.shape == (TINY.dep_q,)


def test_same_seed_same_tokens_other_seed_others(engine: OnnxEngine) -> None:
    frames = user_frames(40)
    first, again, other = (run(engine.stream(seed=seed), frames) for seed in (7, 7, 8))
    assert tokens(first) == tokens(again)
    assert tokens(first) != tokens(other)


def test_logprobs_are_those_of_the_kept_candidates(engine: OnnxEngine) -> None:
    one = run(engine.stream(seed=1, sampling=Sampling(top_k_text=1, top_k_audio=1)), user_frames(5))
    assert all(np.array_equal(item.logprobs, np.zeros(1 + TINY.dep_q)) for item in one)
    two = run(engine.stream(seed=1, sampling=Sampling(top_k_text=2, top_k_audio=2)), user_frames(50))
    chances = np.exp([item.logprobs for item in two])
    assert chances.min() > 0
    assert chances.max() < 1
    # Of two candidates the likelier one must win more often than not.
    assert (chances > 0.5).mean() > 0.5


def test_temperature_zero_takes_the_likeliest(engine: OnnxEngine) -> None:
    frames = user_frames(30)
    greedy = run(engine.stream(seed=1, sampling=GREEDY), frames)
    assert tokens(greedy) == tokens(run(engine.stream(seed=2, sampling=GREEDY), frames))
    assert tokens(greedy) == tokens(run(engine.stream(seed=3, sampling=Sampling(top_k_text=1, top_k_audio=1)), frames))
    assert all((item.logprobs == 0).all() for item in greedy)


def test_padding_bias_moves_the_text_alone_at_first(engine: OnnxEngine) -> None:
    frames = user_frames(30)
    quiet = run(engine.stream(seed=1, sampling=Sampling(padding_bias=50.0)), frames)
    chatty = run(engine.stream(seed=1, sampling=Sampling(padding_bias=-50.0)), frames)
    assert {item.text_token for item in quiet} == {TINY.existing_text_padding_id}
    assert TINY.existing_text_padding_id not in {item.text_token for item in chatty[1:]}


def test_sampling_can_change_between_steps(engine: OnnxEngine) -> None:
    frames, stream = user_frames(20), engine.stream(seed=1)
    reference = run(engine.stream(seed=1), frames[:10])
    assert tokens(run(stream, frames[:10])) == tokens(reference)
    stream.sampling = Sampling(top_k_text=5, top_k_audio=3)
    changed = run(stream, frames[10:])
    stream.sampling = Sampling()
    assert len(tokens(changed)) == len(tokens(run(stream, frames[:10])))


def test_forced_text_is_the_text_of_the_next_frame(engine: OnnxEngine) -> None:
    frames, stream = user_frames(4), engine.stream(seed=1)
    stream.step(frames[0])
    forced = stream.step(frames[1], forced_text=17)
    assert np.isnan(forced.logprobs[0])
    assert np.isfinite(forced.logprobs[1:]).all()
    assert stream.step(frames[2]).text_token == 17


def test_forced_text_reaches_the_depth_transformer(engine: OnnxEngine) -> None:
    frames = user_frames(2)
    codes = set()
    for text in range(10):
        stream = engine.stream(seed=1, sampling=GREEDY)
        stream.step(frames[0], forced_text=text)
        output = stream.step(frames[1])
        assert output.agent_codes is not None
        codes.add(int(output.agent_codes[0]))
    assert len(codes) > 1


@pytest.mark.parametrize("warm_frames", [0, 3, 11])
@pytest.mark.parametrize("length", [1, 2, 7, 8, 9, 30])
def test_prefill_in_one_pass_equals_frame_by_frame(engine: OnnxEngine, warm_frames: int, length: int) -> None:
    prompt, frames = random_prompt(length), user_frames(25)
    whole, single = engine.stream(seed=4), engine.stream(seed=4)
    for stream in (whole, single):
        run(stream, frames[:warm_frames])
    whole.prefill(prompt)
    for frame in prompt:
        single.prefill(frame[None])
    first, second = run(whole, frames), run(single, frames)
    assert tokens(first) == tokens(second)
    for one, two in zip(first, second, strict=True):
        np.testing.assert_allclose(one.logprobs, two.logprobs, atol=1e-4)


def test_prefill_samples_what_long_delays_leave_free(tmp_path: Path) -> None:
    config = replace(TINY, delays=(0, 2, 3, 0, 3), context=20)
    engine = OnnxEngine.load(write_model(tmp_path, config))
    prompt, frames = random_prompt(9, config), user_frames(25, config)
    whole, single = engine.stream(seed=4), engine.stream(seed=4)
    for stream in (whole, single):
        run(stream, frames[:5])
    whole.prefill(prompt)
    for frame in prompt:
        single.prefill(frame[None])
    assert tokens(run(whole, frames)) == tokens(run(single, frames))


def test_prefill_is_seen_and_shown(engine: OnnxEngine) -> None:
    frames, prompt = user_frames(10), random_prompt(6)
    plain, primed = engine.stream(seed=4, sampling=GREEDY), engine.stream(seed=4, sampling=GREEDY)
    primed.prefill(prompt)
    first = primed.step(frames[0])
    assert first.agent_codes is not None
    # The acoustic delay of one frame: the first call after the prompt completes the frame sampled at its end.
    assert tokens(run(plain, frames)) != tokens([first, *run(primed, frames[1:])])


def test_prefilled_embeddings_stand_in_for_tokens(engine: OnnxEngine, checkpoint: Checkpoint) -> None:
    prompt, frames = random_prompt(6), user_frames(10)
    streams = [engine.stream(seed=4) for _ in range(3)]
    rows = [np.array([TINY.text_card] + [TINY.card] * TINY.n_q)]
    for index in range(1, 6):
        delayed = [prompt[index - delay, k] if index > delay else rows[0][k] for k, delay in enumerate(TINY.delays)]
        rows.append(np.array(delayed))
    names = ["text_emb.weight"] + [f"emb.{index}.weight" for index in range(TINY.n_q)]
    tables = [checkpoint.numpy(name) for name in names]
    summed = np.array([sum(table[token] for table, token in zip(tables, row, strict=True)) for row in rows])
    streams[0].prefill(prompt)
    streams[1].prefill(prompt, embeddings=summed[:4])
    streams[2].prefill(prompt, embeddings=summed[:5] + 1)
    plain, given, moved = (tokens(run(stream, frames)) for stream in streams)
    assert given == plain
    assert moved != plain


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (np.zeros((2, 3), dtype=np.int64), "shape"),
        (np.zeros((2, 5), dtype=np.float32), "integers"),
        (np.array([[0, 0, 0, 0, 0], [0, 25, 0, 0, 0]]), "below"),
        (np.array([[0, 0, 0, 0, 24]]), "below"),
        (np.array([[-1, 0, 0, 0, 0]]), "below"),
    ],
)
def test_bad_prompts_are_refused_and_change_nothing(engine: OnnxEngine, prompt: np.ndarray, message: str) -> None:
    frames, stream = user_frames(10), engine.stream(seed=1)
    with pytest.raises(StreamError, match=message):
        stream.prefill(prompt)
    assert tokens(run(stream, frames)) == tokens(run(engine.stream(seed=1), frames))


@pytest.mark.parametrize("embeddings", [np.zeros((3, 32)), np.zeros((1, 31)), np.full((1, 32), np.nan)])
def test_bad_embeddings_are_refused(engine: OnnxEngine, embeddings: np.ndarray) -> None:
    with pytest.raises(StreamError, match="embeddings"):
        engine.stream(seed=1).prefill(random_prompt(2), embeddings=embeddings)


def test_embeddings_are_refused_once_the_conversation_has_begun(engine: OnnxEngine) -> None:
    stream = engine.stream(seed=1)
    run(stream, user_frames(1))
    with pytest.raises(StreamError, match="before the first step"):
        stream.prefill(random_prompt(2), embeddings=np.zeros((1, 32), dtype=np.float32))


@pytest.mark.parametrize(
    "codes", [np.zeros(3, np.int32), np.zeros(2, np.float32), np.array([0, 24]), np.array([-1, 0])]
)
def test_bad_user_codes_are_refused(engine: OnnxEngine, codes: np.ndarray) -> None:
    with pytest.raises(StreamError):
        engine.stream(seed=1).step(codes)


@pytest.mark.parametrize("warm_frames", [0, 1, 5, 30])
def test_snapshot_and_restore(engine: OnnxEngine, warm_frames: int) -> None:
    frames, stream = user_frames(60), engine.stream(seed=4)
    run(stream, frames[:warm_frames])
    saved = stream.snapshot()
    expected = run(stream, frames[30:])
    stream.restore(saved)
    again = run(stream, frames[30:])
    other = engine.stream(seed=99, sampling=GREEDY)
    run(other, frames[:17])
    other.restore(saved)
    moved = run(other, frames[30:])
    assert tokens(again) == tokens(expected) == tokens(moved)
    assert np.array_equal([item.logprobs for item in again], [item.logprobs for item in expected])


def test_foreign_snapshots_are_refused(engine: OnnxEngine, tmp_path: Path) -> None:
    other = OnnxEngine.load(write_model(tmp_path, replace(TINY, context=9)))
    for snapshot in (None, {"calls": 3}, other.stream(seed=1).snapshot()):
        with pytest.raises(StreamError, match="snapshot"):
            engine.stream(seed=1).restore(snapshot)


def test_reset_starts_over(engine: OnnxEngine) -> None:
    frames, stream = user_frames(30), engine.stream(seed=4)
    run(stream, frames)
    stream.reset(5)
    assert tokens(run(stream, frames)) == tokens(run(engine.stream(seed=5), frames))


def test_streams_in_threads_do_not_disturb_each_other(engine: OnnxEngine) -> None:
    frames = user_frames(80)
    expected = {seed: tokens(run(engine.stream(seed=seed), frames)) for seed in range(4)}
    found: dict[int, list[tuple[int, ...]]] = {}

    def converse(seed: int) -> None:
        found[seed] = tokens(run(engine.stream(seed=seed), frames))

    workers = [threading.Thread(target=converse, args=(seed,)) for seed in expected]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert found == expected


def test_a_long_context_equals_a_short_one_until_it_wraps(tmp_path: Path) -> None:
    frames = user_frames(40)
    short, long = (
        run(OnnxEngine.load(write_model(tmp_path / str(size), replace(TINY, context=size))).stream(seed=1), frames)
        for size in (8, 100)
    )
    assert tokens(short[:8]) == tokens(long[:8])
    assert np.abs(short[8].logprobs - long[8].logprobs).max() > 1e-6


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16])
def test_half_precision_files_give_what_their_widened_values_give(tmp_path: Path, dtype: Any) -> None:
    half = write_model(tmp_path / "half", dtype=dtype)
    wide = {name: half.numpy(name) for name in half.tensors}
    (tmp_path / "wide").mkdir()
    save_file(wide, tmp_path / "wide" / "model.safetensors")
    frames = user_frames(30)
    found = run(OnnxEngine.load(half).stream(seed=1), frames)
    expected = run(OnnxEngine.load(Checkpoint.open(tmp_path / "wide", config=TINY)).stream(seed=1), frames)
    assert tokens(found) == tokens(expected)
    np.testing.assert_allclose(
        [item.logprobs for item in found], [item.logprobs for item in expected], rtol=0, atol=1e-5
    )


def fused_copy(checkpoint: Checkpoint, folder: Path) -> Checkpoint:
    folder.mkdir()
    save_file({name: checkpoint.numpy(name) for name in checkpoint.tensors}, folder / "model.safetensors")
    return Checkpoint.open(folder, config=checkpoint.config)


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_low_rank_updates_are_fused_at_load(tmp_path: Path, dtype: Any) -> None:
    base, draw = write_model(tmp_path / "base", dtype=dtype), np.random.default_rng(0)
    pairs: dict[str, np.ndarray] = {}
    for module, slot in linear_slots(TINY).items():
        pairs[f"{module}.lora_A.weight"] = draw.standard_normal((4, slot.in_features)).astype(dtype)
        pairs[f"{module}.lora_B.weight"] = (0.05 * draw.standard_normal((slot.out_features, 4))).astype(dtype)
    (tmp_path / "elsewhere").mkdir()
    save_file(pairs, tmp_path / "elsewhere" / "lora.safetensors")
    tuned = Checkpoint.open(base.path, lora=tmp_path / "elsewhere" / "lora.safetensors")
    assert len(tuned.lora) == len(linear_slots(TINY))
    frames = user_frames(30)
    found = tokens(run(OnnxEngine.load(tuned).stream(seed=1), frames))
    assert found == tokens(run(OnnxEngine.load(fused_copy(tuned, tmp_path / "fused")).stream(seed=1), frames))
    assert found != tokens(run(OnnxEngine.load(base).stream(seed=1), frames))


def test_user_slices_of_the_depth_transformer_are_left_out(tmp_path: Path) -> None:
    shown = write_model(tmp_path / "both", with_slices(TINY, 4))
    assert shown.config.dep_q == 2
    frames = user_frames(30)
    found = tokens(run(OnnxEngine.load(shown).stream(seed=1), frames))
    assert found == tokens(run(OnnxEngine.load(fused_copy(shown, tmp_path / "agent")).stream(seed=1), frames))


def test_sharded_and_linked_weights(tmp_path: Path, engine: OnnxEngine) -> None:
    frames = user_frames(20)
    expected = tokens(run(engine.stream(seed=1), frames))
    sharded = write_model(tmp_path / "sharded", shards=3)
    assert tokens(run(OnnxEngine.load(sharded).stream(seed=1), frames)) == expected
    write_model(tmp_path / "store" / "blobs")
    linked = tmp_path / "store" / "snapshots" / "main"
    linked.mkdir(parents=True)
    for name in ("model.safetensors", "config.json"):
        (linked / name).symlink_to(Path("../../blobs") / name)
    assert tokens(run(OnnxEngine.load(Checkpoint.open(linked)).stream(seed=1), frames)) == expected


def test_the_graph_holds_no_weights(checkpoint: Checkpoint) -> None:
    path = write_step_graph(checkpoint)
    assert path == checkpoint.path / "step.onnx"
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    inside = [item for item in model.graph.initializer if item.data_location != onnx.TensorProto.EXTERNAL]
    assert sum(np.prod(item.dims, dtype=int) for item in inside) < 1000
    assert {
        entry.value for item in model.graph.initializer for entry in item.external_data if entry.key == "location"
    } == {"model.safetensors"}
    path.unlink()


def test_the_folders_graph_is_used_while_it_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = user_frames(10)
    checkpoint = write_model(tmp_path)
    expected = tokens(run(OnnxEngine.load(checkpoint).stream(seed=1), frames))
    write_step_graph(checkpoint)
    builds: list[Checkpoint] = []
    build = onnx_engine.build_step_graph
    monkeypatch.setattr(
        onnx_engine, "build_step_graph", lambda found, **more: (builds.append(found), build(found, **more))[1]
    )
    fitting = Checkpoint.open(tmp_path)
    assert fitting.step_graph_path is not None
    assert tokens(run(OnnxEngine.load(fitting).stream(seed=1), frames)) == expected
    assert not builds
    write_model(tmp_path, dtype=np.float16)
    assert len(run(OnnxEngine.load(Checkpoint.open(tmp_path)).stream(seed=1), frames)) == 10
    assert len(builds) == 1


@pytest.mark.parametrize("threads", [0, -1, True, 1.5])
def test_bad_thread_counts_are_refused(checkpoint: Checkpoint, threads: Any) -> None:
    with pytest.raises(ConfigError, match="threads"):
        OnnxEngine.load(checkpoint, threads=threads)


def test_two_threads_give_the_same_tokens(checkpoint: Checkpoint, engine: OnnxEngine) -> None:
    frames = user_frames(30)
    assert tokens(run(OnnxEngine.load(checkpoint, threads=2).stream(seed=1), frames)) == tokens(
        run(engine.stream(seed=1), frames)
    )


def test_unknown_providers_are_refused(checkpoint: Checkpoint) -> None:
    with pytest.raises(ConfigError, match="NoSuchProvider"):
        OnnxEngine.load(checkpoint, providers=["NoSuchProvider"])


@pytest.mark.parametrize(("module", "named"), [("onnxruntime", "gpu"), ("onnx.helper", "cpu")])
def test_missing_packages_name_their_extra(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch, module: str, named: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=r"duologue\[cpu\]") as caught:
        OnnxEngine.load(checkpoint)
    assert named in str(caught.value)


def test_no_torch_is_imported(checkpoint: Checkpoint) -> None:
    program = (
        "import sys, numpy as np\n"
        "from duologue.engine.onnx_engine import OnnxEngine\n"
        "from duologue.model.checkpoint import Checkpoint\n"
        f"stream = OnnxEngine.load(Checkpoint.open({str(checkpoint.path)!r})).stream(seed=1)\n"
        "stream.step(np.zeros(2, np.int32))\n"
        "assert 'torch' not in sys.modules and 'moshi' not in sys.modules\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment, timeout=60)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's process table")
def test_twenty_minutes_run_in_constant_memory(engine: OnnxEngine) -> None:
    stream, frames = engine.stream(seed=1), user_frames(500)
    for _ in range(4):
        run(stream, frames)
    sizes = [resident_bytes()]
    for _ in range(26):
        outputs = run(stream, frames)
        sizes.append(resident_bytes())
    assert stream._delays.calls == 15_000
    assert all(np.isfinite(item.logprobs).all() for item in outputs)
    # A leak grows in every round; what other tests of this process give back or take grows in some.
    assert np.median(np.diff(sizes)) < 64 << 10
