"""Q-learning: agents that learn what each edit is worth."""
