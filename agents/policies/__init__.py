"""Policies over words, their parts, and how episodes are played with them."""
