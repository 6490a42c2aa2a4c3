import json
from pathlib import Path

import numpy as np
import pytest

from duologue.errors import ConfigError
from duologue_align.synth.derive_timing import Ipu, Samples, collect, main, summarise
from duologue_align.synth.timing import human_timing


@pytest.mark.parametrize(("name", "median"), [("pause_s", 0.5), ("turn_fto_s", 0.18), ("backchannel_s", 0.42)])
def test_draws_follow_the_human_quantiles(name: str, median: float) -> None:
    rng = np.random.default_rng(0)
    drawn = [human_timing().draw(name, rng) for _ in range(4000)]
    for share in (0.1, 0.5, 0.9):
        expected = human_timing().quantile(name, share)
        assert np.quantile(drawn, share) == pytest.approx(expected, abs=0.06 + 0.05 * abs(expected))
    assert human_timing().quantile(name, 0.5) == pytest.approx(median, abs=0.02)


def test_a_bounded_draw_is_the_conditional_distribution() -> None:
    rng = np.random.default_rng(1)
    free = np.array([human_timing().draw("turn_fto_s", rng) for _ in range(6000)])
    bounded = [human_timing().draw("turn_fto_s", rng, low=0.0, high=1.0) for _ in range(3000)]
    assert min(bounded) >= 0.0
    assert max(bounded) <= 1.0
    assert np.median(bounded) == pytest.approx(np.median(free[(free >= 0) & (free <= 1)]), abs=0.03)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ConfigError, match="no timing called 'gaps'"):
        human_timing().draw("gaps", np.random.default_rng(0))


def test_each_figure_of_a_written_conversation() -> None:
    conversation = sorted(
        [
            Ipu(0.0, 2.0, 0, False),
            Ipu(2.5, 5.0, 0, False),  # after a pause of 0.5 s
            Ipu(2.2, 2.6, 1, True),  # a backchannel, 0.2 s after the nearest end
            Ipu(5.3, 9.0, 1, False),  # the floor passes after 0.3 s
            Ipu(8.6, 12.0, 0, False),  # 0.4 s before the other side stops and stays silent: it yields
            Ipu(14.0, 15.0, 1, False),
        ]
    )
    samples = Samples()
    collect(conversation, samples)
    assert samples.values["pause_s"] == pytest.approx([0.5])
    assert samples.values["turn_fto_s"] == pytest.approx([0.3, -0.4, 2.0])
    assert samples.values["turn_ipus"] == [2, 1, 1]
    assert samples.values["backchannel_offset_s"] == pytest.approx([0.2])
    assert samples.values["yield_s"] == pytest.approx([0.4])
    assert samples.values["interruption_depth_s"] == pytest.approx([3.3])
    assert summarise(samples)["ipu_s"]["count"] == 5  # type: ignore[index]


def test_the_table_is_derived_from_a_file_of_rows(tmp_path: Path) -> None:
    rows = {"conversation": [0, 0, 1], "channel": [0, 1, 0], "start_s": [0.0, 1.2, 0.0], "end_s": [1.0, 3.0, 9.0]}
    source, out = tmp_path / "rows.npz", tmp_path / "timing.json"
    np.savez(source, **{name: np.array(values) for name, values in rows.items()}, is_backchannel=np.array([0, 0, -1]))
    main([str(source), str(out)])
    table = json.loads(out.read_text())
    assert table["turn_fto_s"]["quantiles"][25] == pytest.approx(0.2)
    assert "1 annotated" in table["source"]
    np.savez(source, channel=np.zeros(1))
    with pytest.raises(ConfigError, match="expected the arrays"):
        main([str(source), str(out)])
