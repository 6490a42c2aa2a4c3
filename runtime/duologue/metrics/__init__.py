"""How user and agent interact: speech activity, events, the four axes and their human reference bands."""
