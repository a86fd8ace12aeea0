"""What the agents are judged by: scores of replies, and how sure their differences are."""
