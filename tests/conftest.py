from __future__ import annotations

import os

import pytest
import torch

from pmlm_env.episodes import EpisodeSet
from tests.standins import HashEncoder, make_episodes

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"
torch.set_num_threads(2)


@pytest.fixture
def episodes() -> EpisodeSet:
    return make_episodes()


@pytest.fixture
def encoder() -> HashEncoder:
    return HashEncoder()
