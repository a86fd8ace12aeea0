"""What a text says of a condition that it mentions."""

from __future__ import annotations

from typing import Literal

#: What a text says of a condition that it mentions.
Status = Literal["asserted", "possible", "denied", "other"]

#: All statuses; of several mentions of a condition, the first of these counts.
STATUSES: tuple[Status, ...] = ("asserted", "possible", "denied", "other")
#: The statuses of a condition that a text names as a diagnosis.
NAMED: tuple[Status, ...] = STATUSES[:2]
