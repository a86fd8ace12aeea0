"""Agents that learn what each deletion is worth."""
