"""The full-size network, built without memory for its weights."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from duologue.model.config import LMConfig  # noqa: E402
from duologue.model.layout import linear_slots, with_slices  # noqa: E402
from duologue.model.lm import LanguageModel  # noqa: E402


@pytest.mark.parametrize(("slices", "parameters"), [(8, 7_687_729_152), (16, 8_371_408_896)])
def test_parameter_counts_are_the_released_ones(slices: int, parameters: int) -> None:
    config = with_slices(LMConfig.moshi_7b(), slices)
    with torch.device("meta"):
        model = LanguageModel(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    linears = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    assert linears == set(linear_slots(config))
