"""Settings of policies and networks, apart from the code that loads torch."""

from __future__ import annotations

from typing import Literal

#: How scores become probabilities; see ``agents.policies.distributions``.
Distribution = Literal["softmax", "sparsemax"]

#: Limit on the width of a network, and so on the memory that somebody else's saved agent can ask for.
MOST_HIDDEN = 4_096
