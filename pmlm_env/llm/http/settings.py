"""What a user says about an endpoint (address, headers, query, where its keys are), checked before anything is sent."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import httpx

from pmlm_env.llm.base import LLMError

_LOOK = "it should look like https://api.openai.com/v1"
#: How many vendors' keys begin, JSON web tokens, and Zhipu's keys.
_KEY = re.compile(
    r"\b(?:(?:sk|pk|rk|gsk|hf|xai|pplx|nvapi|r8|gh[pousr]|github_pat)[-_](?=[\w-]{0,200}\d)[\w-]{12,}"
    r"|AIza[\w-]{30,}|eyJ[\w-]{10,}\.eyJ[\w.-]*|[0-9a-f]{32}\.\w{16,})"
)
_VARIABLE = re.compile(r"(?!.*(?=[A-Z]*\d)[A-Z\d]{20})[A-Z\d_]{1,100}")  # no run of capitals and digits as in a key
_HEADER_NAME = re.compile(r"[\w!#$%&'*+.^`|~-]+", re.ASCII)
#: Headers and parts of a query that hold secrets.
_SECRET_NAME = re.compile(r"auth|key|token|secret|passw|cookie|credential|sig$|signature|^code$", re.IGNORECASE)
#: Parts of a body that only sound so.
_NO_SECRET = re.compile(
    r"cache_key|tokeni[sz]|(?:bos|eos|pad|unk|sep|cls|mask|stop|start|end)_?token|auth?or", re.IGNORECASE
)
#: Headers that say how a message is sent, which is for us to say.
_OURS = re.compile(
    r"host|content-.*|transfer-encoding|connection|keep-alive|accept-encoding|te|trailer|upgrade|expect|proxy-.*",
    re.IGNORECASE,
)
_ENV = "env:"


def holds_key(text: str) -> bool:
    """Whether a text holds what looks like a vendor's key, so that it should not be shown."""
    return _KEY.search(text) is not None


def without_keys(text: str) -> str:
    """Return a text with all that looks like a vendor's key left out."""
    return _KEY.sub("***", text)


@lru_cache(maxsize=16)
def is_this_machine(url: str) -> bool:
    """Whether a URL leads to this machine by its very name."""
    host = httpx.URL(url).host.rstrip(".")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        try:
            address = ipaddress.ip_address(socket.inet_aton(host))  # 127.1, as connections read it
        except OSError:
            return host == "localhost"
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def names_host(url: httpx.URL) -> bool:
    """Whether a URL names a host whose address can be looked up."""
    try:
        host = url.host
        url.raw_host.decode().encode("idna")  # as the look-up does, which would raise in the middle of a request
    except UnicodeError:
        return False
    return bool(host) and ("%" not in host or ":" in host)  # as in fe80::1%eth0


def checked_base_url(base_url: str, allow_http: bool) -> str:
    """Return an endpoint's address in its usual form, without ``/chat/completions``.

    Raises:
        ValueError: It is none, or prompts would go unencrypted to another machine. Secrets in it are not quoted.
    """
    try:
        url = httpx.URL(base_url.strip().rstrip("/").removesuffix("/chat/completions").rstrip("/"))
        odd = any(letter.isspace() or not letter.isprintable() for letter in base_url.strip())
    except httpx.InvalidURL:
        odd = True
    if odd or (url.raw_host and not names_host(url)):
        raise ValueError(f"base_url is no URL (look for blanks, odd letters and a port that is no number); {_LOOK}")
    if url.userinfo or url.query or url.fragment:  # may be secret: not quoted
        raise ValueError(
            "base_url must not hold a user, query or fragment: put the key into the environment, and a query such as "
            'an api-version into the providers file: query = { "api-version" = "..." }'
        )
    if holds_key(base_url):
        raise ValueError("base_url holds what looks like a key: put that into the environment")
    if url.scheme not in ("http", "https") or not url.raw_host:
        quoted = "" if "@" in base_url else f" {base_url!r}"
        fault = "names no address" if "://" in base_url else "lacks http:// or https:// at its beginning"
        raise ValueError(f"base_url{quoted} {fault}: {_LOOK}")
    if url.port is not None and not 1 <= url.port <= 65535:
        raise ValueError(f"base_url has the port {url.port}: a port is from 1 to 65535")
    if url.scheme == "http" and not allow_http and not is_this_machine(str(url)):
        raise ValueError(
            f"base_url {base_url!r} would send prompts unencrypted to another machine: use https, or write "
            "allow_http = true in the providers' file"
        )
    return str(url)


def check_variable(name: str, what: str) -> None:
    """See that ``name`` is the name of an environment variable.

    Raises:
        ValueError: It is none, and may be a key by mistake; it is not quoted.
    """
    if name not in os.environ and (not _VARIABLE.fullmatch(name) or holds_key(name)):
        raise ValueError(
            f"{what} should name an environment variable, in capitals as in HOSPITAL_LLM_KEY (what stands there is not "
            "shown, as it may be the key itself: keys go into the environment)"
        )


def check_headers(headers: Mapping[str, str]) -> None:
    """See that headers can be sent, and that secrets are in the environment.

    Raises:
        ValueError: The message names the header; values are not quoted.
    """
    _check_names("headers", headers)
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError(f"headers: {name!r} is no name of a header: use letters, digits and hyphens")
        if _OURS.fullmatch(name):
            raise ValueError(f"headers: {name} is set by the client itself: leave it out")
        variable = variable_of(value)
        if variable is not None:
            check_variable(variable, f"headers: {name} = {_ENV}...")
        elif _SECRET_NAME.search(name):
            raise ValueError(
                f'headers: {name} may be secret: put its value into an environment variable, and write "{_ENV}VARIABLE"'
            )


def check_query(query: Mapping[str, str]) -> None:
    """See that a query can be sent, and holds no secret.

    Raises:
        ValueError: The message names the part; values are not quoted.
    """
    _check_names("query", query)
    for name in query:
        if _SECRET_NAME.search(name):
            raise ValueError(f"query: {name} may be secret, and addresses are logged on the way: send it as a header")


def check_body(body: Mapping[str, Any]) -> None:
    """See that what every request holds is no secret.

    Raises:
        ValueError: The message names the part; values are not quoted.
    """
    left: list[tuple[str, Any]] = list(body.items())
    while left:
        name, value = left.pop()
        if isinstance(value, Mapping):
            left += value.items()
        elif isinstance(value, list | tuple):
            left += [(name, item) for item in value]
        elif isinstance(value, str) and _SECRET_NAME.search(name) and not _NO_SECRET.search(name):
            raise ValueError(f"extra_body: {name} may be secret, and kept replies tell of it: send it as a header")


def _check_names(what: str, table: Mapping[str, str]) -> None:
    for name, value in table.items():
        if not name or not _is_plain(name):
            raise ValueError(f"{what}: {name!r} should be ASCII, without line breaks")
        if not _is_plain(value) or value != value.strip():
            raise ValueError(f"{what}: the value of {name} should be ASCII, without line breaks or blanks around it")
        if holds_key(value):
            raise ValueError(f"{what}: {name} holds what looks like a key: put that into the environment")
    if len({name.lower() for name in table}) < len(table):
        raise ValueError(f"{what}: a name comes twice: {', '.join(table)}")


def _is_plain(text: str) -> bool:
    return text.isascii() and text.isprintable()


def variable_of(value: str) -> str | None:
    """Return the environment variable that a header's value names (``env:VARIABLE``), None where it is literal."""
    return value.removeprefix(_ENV) if value.startswith(_ENV) else None


def secret(variable: str, blanks: bool = False) -> str:
    """Return what an environment variable holds, "" where it holds nothing.

    Args:
        variable: Its name.
        blanks: Whether there may be blanks within.

    Raises:
        LLMError: It holds what cannot be a key, which is not quoted.
    """
    value = os.environ.get(variable, "").strip()
    fault = ""
    if not all("!" <= letter <= "~" or (blanks and letter == " ") for letter in value):
        fault = "blanks, line breaks or letters outside ASCII in it"
    elif len(value) > 1 and value[0] == value[-1] and value[0] in "'\"`":
        fault = "quotes around it: leave them out"
    if fault:
        del value  # some show local variables with a traceback
        raise LLMError(f"the environment variable {variable} holds no key: it has {fault}")
    return value
