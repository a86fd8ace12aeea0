"""Rewards of edited prompts."""
