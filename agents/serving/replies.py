"""The LLM that replies to refined prompts, and its replies."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from agents.evaluation.replies import replies_to
from agents.models import limited_llm
from agents.run_folder import RunFolder
from agents.serving.config import AS_TRAINED, RefineConfig, ReplyOptions
from agents.settings import from_plain
from agents.training.config import named_classes, refuse_classes
from agents.training.destination import with_destination
from pmlm_env.io.files import make_folder
from pmlm_env.llm import BudgetExceededError, LLMOptions
from pmlm_env.llm.base import LLMError, Reply, Request
from pmlm_env.llm.storage.cached_llm import CachedLLM
from pmlm_env.llm.storage.location import check_given
from pmlm_env.rewards.delta import TooManyFailuresError

logger = logging.getLogger(__name__)


def replying_llm(config: RefineConfig, run: RunFolder | None, out: Path) -> CachedLLM:
    """Return the LLM, with the cache of its replies.

    Raises:
        ValueError: There is no such LLM, or the run names a class or an address that the user has to give again.
        LLMError: The LLM cannot be used at all, for example without a key.
    """
    options, calls = _options(config, run), config.calls
    make_folder(out.parent)
    cache: str | Path | None = calls.cache
    if cache is None and run is not None:
        cache = run.settings()["calls"].get("cache") or run.replies
        check_given(None, cache, run.config)
    if cache is None and is_regular(out):
        cache = out.with_name(f"{out.name}.replies.sqlite")
    return limited_llm(options, calls, config.device, cache)[0]


def _options(config: RefineConfig, run: RunFolder | None) -> LLMOptions:
    """Return the options of the LLM: those given or, for ``as-trained``, the run's with those given in their place."""
    given = LLMOptions(**vars(config.models))
    if config.models.llm != AS_TRAINED:
        return given
    if run is None:
        raise ValueError(f"{config.model} is not a run folder: name the LLM with --llm")
    settings, names = run.settings(), [each.name for each in fields(LLMOptions)]
    saved = {name: settings["models"][name] for name in names if name in settings["models"]}
    try:
        as_trained = from_plain(LLMOptions, saved)
    except ValueError as error:
        raise ValueError(f"{run.config}: {error}: the file is damaged: name the LLM with --llm") from None
    if not config.allow_import:
        refuse_classes({part: name for part, name in named_classes(settings).items() if part == "llm"}, run.config)
    usual = ReplyOptions()
    changes: dict[str, Any] = {name: value for name, value in vars(given).items() if value != getattr(usual, name)}
    changes |= {"base_url": given.base_url, "providers": given.providers}
    return with_destination(replace(as_trained, **changes), saved, run.config, replay=config.calls.replay)


def replies_of(llm: CachedLLM, prompts: Sequence[str], config: RefineConfig) -> list[Reply]:
    """Return the reply to each prompt, or the error; also if a limit ends the requests early."""
    found: dict[int, Reply] = {}
    requests = [Request(prompt) for prompt in prompts]
    # disable=None: no bar where standard error is no terminal
    with tqdm(total=len(requests), desc="asking", unit="reply", dynamic_ncols=True, disable=None) as bar:
        try:
            return replies_to(llm, requests, config.calls.max_failures, bar.update, found)
        except (BudgetExceededError, TooManyFailuresError) as stop:
            logger.warning("%s", stop)
            not_asked = LLMError("not asked, because the requests were stopped early")
            return [found.get(index, not_asked) for index in range(len(requests))]


def is_regular(path: Path) -> bool:
    """Whether a path is, or would be, a regular file, rather than a pipe or a device such as /dev/stdout."""
    return path.is_file() or not path.exists()
