"""One-frame step engines behind one interface: ONNX Runtime (the default) and torch."""

from duologue.engine.base import NoiseSource, Sampling, StepEngine, StepNoise, StepStream, TokenDelays

__all__ = ["NoiseSource", "Sampling", "StepEngine", "StepNoise", "StepStream", "TokenDelays"]
