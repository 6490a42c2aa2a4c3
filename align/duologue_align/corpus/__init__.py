"""Two-channel recordings of conversations: where they lie, who speaks on which channel, what is known of the words.

`layouts` lists the conversations of folders, manifests and published corpora; nothing here listens to the audio before
`audio` is asked for it.
"""
