"""Latency in place: what this host, its devices and its engines make of the 80 ms budget, and what dominates it."""
