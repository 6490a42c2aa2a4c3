"""Flat scripts to read, copy and change."""
