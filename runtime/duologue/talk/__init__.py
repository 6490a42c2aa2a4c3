"""The command `duologue talk`: a conversation through microphone and loudspeaker, and what it is like while it runs."""
