"""From what training leaves to what the runtime loads: a whole bundle, or an adapter to switch to."""
