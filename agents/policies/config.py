"""Settings of policies and networks, in a module that does not import torch."""

from __future__ import annotations

from typing import Literal

#: How scores become probabilities; see ``agents.policies.distributions``.
Distribution = Literal["softmax", "sparsemax"]

#: Maximum width of a network; this limits the memory that a saved agent from an untrusted source can request.
MOST_HIDDEN = 4_096
