"""Making an LLM from its name and options."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from pmlm_env.io.keys import holds_key
from pmlm_env.kwargs import NO_KWARGS, Kwargs, read_kwargs
from pmlm_env.llm.base import LLM, OnTruncated
from pmlm_env.llm.custom import LLMS, load_custom_llm
from pmlm_env.llm.http.providers import Provider, load_providers
from pmlm_env.llm.storage.budget import Budget, Price
from pmlm_env.llm.storage.budgeted_llm import BudgetedLLM
from pmlm_env.llm.storage.cache import ReplyCache
from pmlm_env.llm.storage.cached_llm import CachedLLM
from pmlm_env.weights import BUNDLED, DEFAULT_LLM

if TYPE_CHECKING:
    from pmlm_env.llm.http.endpoint import OpenAIChat
    from pmlm_env.llm.http.pool import PooledChat

_IN_PROCESS = ("local", "vllm")

#: The kinds of LLMs that run in this process, cost nothing, and take no file of providers.
IN_PROCESS = (*_IN_PROCESS, "responder")

LLMDtype = Literal["auto", "bfloat16", "float32"]


@dataclass(frozen=True)
class LLMOptions:
    """The downstream LLM and all options that determine its replies.

    Attributes:
        llm: ``local:NAME_OR_PATH`` (transformers, in this process), ``vllm:NAME_OR_DIR`` (vLLM, likewise),
            ``PROVIDER:MODEL`` (an OpenAI-compatible endpoint: openai, gemini, zhipu, ... or one of ``providers``),
            ``responder`` or ``responder:SCHEMA`` (rule-based, for the labels of a schema; for tests), or an LLM of your
            own: ``package.module:Class``, or the name of an installed plugin.
        base_url: Address of the endpoint; by default the provider's. Keys come from the environment only.
        providers: A TOML file with your own providers, rate limits and prices; see docs/llm.
        max_new_tokens: Maximum number of tokens of a reply.
        temperature: Sampling temperature; 0 = greedy.
        llm_seed: Sampling seed.
        llm_dtype: Number format of ``local:``. ``auto`` is bfloat16 if the processor supports it. In bfloat16 about
            half of the replies depend on which prompts share their batch; in ``float32``, which takes twice as long,
            hardly any do.
        on_truncated: What to do with a reply cut by ``max_new_tokens``: ``keep`` it (the default for LLMs in this
            process) or treat it as an ``error`` (the default for endpoints).
        chat_template_kwargs: For ``local:`` and ``vllm:``, further arguments of the model's chat template, as JSON,
            such as ``{"enable_thinking": false}``.
        llm_kwargs: Arguments of your own LLM's class, as JSON.
    """

    llm: str = f"local:{DEFAULT_LLM}"
    base_url: str | None = None
    providers: str | None = None
    max_new_tokens: int = 128
    temperature: float = 0.0
    llm_seed: int = 0
    llm_dtype: LLMDtype = "auto"
    on_truncated: OnTruncated | None = None
    chat_template_kwargs: Kwargs = NO_KWARGS
    llm_kwargs: Kwargs = NO_KWARGS

    def __post_init__(self) -> None:
        """Read the arguments given as mappings or JSON.

        Raises:
            ValueError: They are not JSON values, or contain what looks like a key.
        """
        read_kwargs(self)


def is_custom(options: LLMOptions) -> bool:
    """Whether the LLM is a class of one's own: an installed plugin or a path, and not a provider's model.

    Raises:
        ValueError: The providers' file is invalid.
    """
    kind, _, name = options.llm.partition(":")
    if kind == "responder" or (name and kind in {*_IN_PROCESS, *load_providers(options.providers)}):
        return False
    return LLMS.knows(options.llm)


def price_of(options: LLMOptions) -> Price | None:
    """Return the LLM's price from the providers' file, or None if it has none.

    Raises:
        ValueError: The providers' file is invalid.
    """
    kind, _, model = options.llm.partition(":")
    provider = load_providers(options.providers).get(kind)
    return provider.prices.get(model) if provider is not None else None


def system_prompt_of(options: LLMOptions) -> str:
    """Return what the providers' file has the endpoint get before each prompt; "" if there is nothing.

    Raises:
        ValueError: The providers' file is invalid.
    """
    provider = load_providers(options.providers).get(options.llm.partition(":")[0])
    return "" if provider is None else provider.settings.get("system_prompt") or ""


def load_llm(
    options: LLMOptions | str,
    *,
    device: str = "auto",
    concurrency: int | None = None,
    cache: str | Path | None = None,
    replay: bool = False,
    budget: Budget | None = None,
    adapter: Path | None = None,
) -> CachedLLM:
    """Make an LLM with a cache.

    Args:
        options: The LLM; a string stands for ``LLMOptions`` with that ``llm``.
        device: Device for ``local:``.
        concurrency: Maximum number of requests in flight; by default the provider's.
        cache: Where replies are stored: a file, or ``postgresql://...``; None = in memory.
        replay: Send no requests: a reply that is not in ``cache`` is an error. Needs no key and loads no weights.
        budget: Where calls are booked.
        adapter: The folder of a LoRA adapter for a ``local:`` LLM.

    Raises:
        ValueError: There is no such LLM, or an argument does not apply to it.
        LLMError: The environment lacks the endpoint's key, or has no usable proxy or certificates.
    """
    if isinstance(options, str):
        options = LLMOptions(options)
    if holds_key(options.llm):  # checked before any message quotes it
        raise ValueError(
            "llm contains what looks like a key: put the key into the environment, and give the model's name here"
        )
    budget = budget or Budget()
    if adapter is not None and not options.llm.startswith("local:"):
        raise ValueError(f"an adapter has no effect with {options.llm!r}: it is for local: LLMs")
    if is_custom(options):
        return _load_custom(options, device, concurrency, cache, replay, budget)
    if options.llm_kwargs:
        raise ValueError(f"--llm-kwargs has no effect with {options.llm!r}: it is for an LLM of your own; leave it out")
    kind, _, name = options.llm.partition(":")
    in_process = kind == "responder" or (kind in _IN_PROCESS and bool(name))
    if options.base_url is not None and in_process:
        raise ValueError(
            f"{options.llm!r} runs in this process and takes no base URL: leave it out, or use openai:MODEL"
        )
    usual = LLMOptions()
    idle = {"--providers": options.providers is not None, "--concurrency": concurrency is not None}
    if kind == "responder":
        for setting in ("max_new_tokens", "temperature", "llm_seed", "on_truncated"):
            idle["--" + setting.replace("_", "-")] = getattr(options, setting) != getattr(usual, setting)
    for option, given in idle.items():
        if in_process and given:
            raise ValueError(f"{option} has no effect with {options.llm!r}, which runs in this process: leave it out")
    if kind in _IN_PROCESS and options.llm_seed != usual.llm_seed and options.temperature == 0:
        raise ValueError(f"--llm-seed has no effect with {options.llm!r} at temperature 0: leave it out")
    if options.llm_dtype not in get_args(LLMDtype) or (options.llm_dtype != "auto" and kind != "local"):
        raise ValueError(f"llm_dtype is {options.llm_dtype!r}: use one of {get_args(LLMDtype)}, and only with local:")
    if options.chat_template_kwargs and kind not in _IN_PROCESS:
        raise ValueError(
            f"chat_template_kwargs is for local: and vllm:, but the LLM is {options.llm!r}: leave it out, or use "
            "the provider's extra_body (docs/llm)"
        )
    _check_replay(replay, cache)
    if in_process:
        model, max_tokens = _load_in_process(options, kind, name, device, adapter)
        return CachedLLM(BudgetedLLM(model, budget, max_tokens), ReplyCache(cache), replay)
    providers = load_providers(options.providers)
    if kind not in providers or not name:
        raise ValueError(_unknown(options))
    chat = _endpoint(options, providers[kind], name, concurrency, budget)
    if not replay:
        chat.check_environment()
    return CachedLLM(chat, ReplyCache(cache), replay)


def _load_custom(
    options: LLMOptions,
    device: str,
    concurrency: int | None,
    cache: str | Path | None,
    replay: bool,
    budget: Budget,
) -> CachedLLM:
    idle = [each.name for each in fields(LLMOptions) if each.name not in ("llm", "llm_kwargs")]
    given = [f"--{name.replace('_', '-')}" for name in idle if getattr(options, name) != getattr(LLMOptions, name)]
    if given := [*given, *(["--concurrency"] if concurrency is not None else [])]:
        raise ValueError(f"{given[0]} has no effect with the LLM {options.llm}: use --llm-kwargs for what it takes")
    _check_replay(replay, cache)
    try:
        llm = load_custom_llm(options.llm, options.llm_kwargs, device)
    except ValueError as error:
        kind, cause = options.llm.partition(":")[0], error.__cause__
        if isinstance(cause, ModuleNotFoundError) and cause.name == kind:  # perhaps a misspelled provider
            raise ValueError(f"{_unknown(options)} (there is no module {kind})") from None
        raise
    return CachedLLM(BudgetedLLM(llm, budget, llm.max_tokens), ReplyCache(cache), replay)


def _unknown(options: LLMOptions) -> str:
    bundled = f" (did you mean 'local:{options.llm}'?)" if options.llm in BUNDLED else ""
    return (
        f"unknown LLM {options.llm!r}{bundled}: use local:NAME_OR_PATH, vllm:NAME_OR_DIR, responder, PROVIDER:MODEL "
        f"with one of {', '.join(sorted(load_providers(options.providers)))}, or package.module:Class of an LLM of "
        "your own"
    )


def _check_replay(replay: bool, cache: str | Path | None) -> None:
    if replay and cache is None:
        raise ValueError("a replay needs cached replies: set cache to their file or server")


def _load_in_process(options: LLMOptions, kind: str, name: str, device: str, adapter: Path | None) -> tuple[LLM, int]:
    """Return the LLM and the maximum number of tokens of a reply."""
    if kind == "responder":
        from pmlm_env.cohort.schema import Schema
        from pmlm_env.llm.responder import MAX_TOKENS, Responder

        schema = Schema.load(name) if ":" in options.llm else None
        if schema is not None and not schema.labels:
            raise ValueError(f"the responder names the labels of a schema, but {name} has none: add labels to it")
        return Responder(schema), MAX_TOKENS
    settings: dict[str, Any] = {
        "max_new_tokens": options.max_new_tokens,
        "temperature": options.temperature,
        "seed": options.llm_seed,
        "on_truncated": options.on_truncated or "keep",
        "chat_template_kwargs": dict(options.chat_template_kwargs),
    }
    if kind == "vllm":
        from pmlm_env.llm.local.vllm import VLLMEngine

        return VLLMEngine(name, **settings), options.max_new_tokens
    import torch

    from pmlm_env.llm.local.local_llm import LocalLLM

    dtype = None if options.llm_dtype == "auto" else getattr(torch, options.llm_dtype)
    return LocalLLM(name, device=device, dtype=dtype, adapter=adapter, **settings), options.max_new_tokens


def _endpoint(
    options: LLMOptions, provider: Provider, model: str, concurrency: int | None, budget: Budget
) -> OpenAIChat | PooledChat:
    from pmlm_env.llm.http.endpoint import OpenAIChat

    if options.temperature and not provider.send_temperature:
        raise ValueError(f"{provider.name} models take no temperature: leave {options.temperature} out")
    if options.llm_seed and not provider.send_seed:
        raise ValueError(f"{provider.name} models take no seed: leave {options.llm_seed} out")
    settings: dict[str, Any] = {
        **provider.settings,
        "max_tokens": options.max_new_tokens,
        "temperature": options.temperature if provider.send_temperature else None,
        "seed": options.llm_seed if provider.send_seed else None,
        "on_truncated": options.on_truncated or "error",
    }
    if provider.endpoints:
        from pmlm_env.llm.http.pool import PooledChat

        if options.base_url is not None:
            raise ValueError(
                f"--base-url has no effect with {provider.name}, which has several endpoints: leave it out"
            )
        chats = [OpenAIChat(model, **{**settings, **own}, budget=budget) for own, _ in provider.endpoints]
        return PooledChat(provider.name, chats, [weight for _, weight in provider.endpoints], concurrency)
    if options.base_url is not None:
        settings["base_url"] = options.base_url
    if concurrency is not None:
        settings["concurrency"] = concurrency
    return OpenAIChat(model, **settings, budget=budget)
