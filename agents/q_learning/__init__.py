"""Q-learning agents: they learn the value of each edit."""
