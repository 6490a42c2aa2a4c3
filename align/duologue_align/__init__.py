"""Reinforcement-learning alignment of full-duplex speech models; needs torch and peft."""
