"""How trained agents are evaluated: scores of replies, confidence intervals of differences, traces and tables."""
