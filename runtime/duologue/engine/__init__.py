"""One-frame step engines behind one interface: ONNX Runtime (the default) and torch."""

from duologue.engine.base import NoiseSource, StepEngine, StepNoise, StepStream, TokenDelays

__all__ = ["NoiseSource", "StepEngine", "StepNoise", "StepStream", "TokenDelays"]
