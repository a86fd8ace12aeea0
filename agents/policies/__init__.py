"""Policies over words, what they are made of, and how they play."""
