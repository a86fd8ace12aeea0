"""Agents that learn by policy gradient."""
