"""Rewards: pure functions of (situation, agent activity, agent text), combined by presets."""

from duologue_align.rewards import backchannel_rules, floor_rules, paper_rules, text_rules, turn_rules
from duologue_align.rewards.preset import RewardPreset
from duologue_align.rewards.registry import COMPONENTS, component
from duologue_align.rewards.situation import Reply, Situation

# Importing the rules registers their components.
_RULES = (backchannel_rules, floor_rules, paper_rules, text_rules, turn_rules)

__all__ = ["COMPONENTS", "Reply", "RewardPreset", "Situation", "component"]
