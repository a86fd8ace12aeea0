"""The LLM that replies to refined prompts, and its replies."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

from tqdm import tqdm

from agents.evaluation.replies import replies_to
from agents.models import limited_llm
from agents.problem import Editor
from agents.run_folder import RunFolder
from agents.serving.config import AS_TRAINED, RefineConfig
from agents.serving.refine import check_editor
from agents.settings import from_plain
from agents.training.config import named_classes, refuse_classes
from agents.training.destination import with_destination
from pmlm_env.io.files import make_folder
from pmlm_env.llm import Budget, BudgetExceededError, Limits, LLMOptions, Price, load_llm, price_of
from pmlm_env.llm.base import LLMError, Reply, Request
from pmlm_env.llm.storage.cached_llm import CachedLLM
from pmlm_env.llm.storage.location import check_given
from pmlm_env.rewards.delta import TooManyFailuresError

logger = logging.getLogger(__name__)


def replying_llm(config: RefineConfig, run: RunFolder | None, out: Path) -> tuple[CachedLLM, Budget]:
    """Return the LLM, with the cache of its replies, and the budget of what it spends.

    Raises:
        ValueError: There is no such LLM, or the run names a class or an address that the user has to give again.
        LLMError: The LLM cannot be used at all, for example without a key.
    """
    options = _options(config, run)
    return limited_llm(options, config.calls, config.device, _cache(config, run, out))


def editing_llm(
    editor: Editor, config: RefineConfig, run: RunFolder | None, out: Path | None, within: Budget | None
) -> CachedLLM:
    """Return the LLM that the agent itself asks for edits, with the same cache.

    Args:
        editor: The LLM.
        config: The settings, whose limits hold for all LLMs together.
        run: The agent's run folder.
        out: The file to write.
        within: The budget of the LLM that replies, if there is one.

    Raises:
        ValueError: There is no such LLM, or it was not named again; see ``agents.serving.refine.check_editor``.
        LLMError: The LLM cannot be used at all, for example without a key.
    """
    check_editor(editor, config.editor)
    options, calls = editor.options(config.models.providers), config.calls
    price = Price(0.0, 0.0) if editor.in_process else price_of(options)
    within = within or Budget(calls, None, price, calls.budget_file)
    return load_llm(
        options,
        device=config.device,
        cache=_cache(config, run, out),
        replay=calls.replay,
        budget=Budget(Limits(editor.max_calls), None, price, within=within),
    )


def _cache(config: RefineConfig, run: RunFolder | None, out: Path | None) -> str | Path | None:
    """Return where replies are stored: what is given, the run's, or a file beside ``out``; None = in memory."""
    cache: str | Path | None = config.calls.cache
    if cache is None and run is not None:
        cache = run.settings()["calls"].get("cache") or run.replies
        check_given(None, cache, run.config)
    if out is not None:
        make_folder(out.parent)
        if cache is None and is_regular(out):
            cache = out.with_name(f"{out.name}.replies.sqlite")
    return cache


def _options(config: RefineConfig, run: RunFolder | None) -> LLMOptions:
    """Return the options of the LLM: those given or, for ``as-trained``, the run's with those given in their place."""
    given = config.models.given
    if config.models.llm != AS_TRAINED:
        return LLMOptions(**given)
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
    options = replace(as_trained, **{"base_url": None, "providers": None, **given})
    return with_destination(options, saved, run.config, replay=config.calls.replay)


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
