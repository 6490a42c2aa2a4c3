"""The hacking suite: do scripted agents that understand nothing earn more than a human?"""
