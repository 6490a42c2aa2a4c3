"""Evaluation that cannot be fooled: recorded users and users who react, beside agents that understand nothing.

`items` and `fdb` are what is played, `take` is what came of it, `static` plays recordings; `voices`, `person` and
`rivals` make a conversation, `dynamic` holds it; `measures` says what is measured, `part` and `report` how it is told.
"""
