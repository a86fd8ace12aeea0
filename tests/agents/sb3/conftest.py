from __future__ import annotations

from importlib.util import find_spec

# Stable-Baselines3 is an extra: without it there is nothing to test here.
collect_ignore_glob = [] if find_spec("sb3_contrib") else ["test_*.py"]
