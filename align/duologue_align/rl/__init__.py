"""Reinforcement learning on mined segments: rollouts, rewards, the clipped objective, adapters, the run around them.

The way of the data: `sampler` says which segments a step takes, `scenes` reads what they feed the model,
`rollout` lets it converse, `listener` hears what it did, `grading` rewards it, `objective` turns rewards into a loss,
`trainer` takes the step, `run` repeats it.
"""
