"""Policies over words, their components, and functions that play episodes with them."""
