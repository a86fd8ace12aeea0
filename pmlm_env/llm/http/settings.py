"""Checks of an endpoint's settings (address, headers, query, names of keys) before anything is sent."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import httpx

from pmlm_env.io.keys import holds_key
from pmlm_env.llm.base import LLMError

_EXAMPLE = "it should look like https://api.openai.com/v1"
#: Environment variables; no long run of capitals and digits, as in a key.
_VARIABLE = re.compile(r"(?!.*(?=[A-Z]*\d)[A-Z\d]{20})[A-Z\d_]{1,100}")
_HEADER_NAME = re.compile(r"[\w!#$%&'*+.^`|~-]+", re.ASCII)
#: Names of headers and query parameters that contain secrets.
_SECRET_NAME = re.compile(r"auth|key|token|secret|passw|cookie|credential|sig$|signature|^code$", re.IGNORECASE)
#: Names in a request body that match _SECRET_NAME but are not secret.
_NOT_SECRET_NAME = re.compile(
    r"cache_key|tokeni[sz]|(?:bos|eos|pad|unk|sep|cls|mask|stop|start|end)_?token|auth?or", re.IGNORECASE
)
#: Headers that the HTTP client sets itself.
_CLIENT_HEADERS = re.compile(
    r"host|content-.*|transfer-encoding|connection|keep-alive|accept-encoding|te|trailer|upgrade|expect|proxy-.*",
    re.IGNORECASE,
)
_ENV = "env:"


@lru_cache(maxsize=16)
def is_this_machine(url: str) -> bool:
    """Whether the host name or address of a URL is this machine's loopback."""
    host = httpx.URL(url).host.rstrip(".")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        try:
            address = ipaddress.ip_address(socket.inet_aton(host))  # short forms such as 127.1
        except OSError:
            return host == "localhost"
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def names_host(url: httpx.URL) -> bool:
    """Whether a URL has a host name that can be resolved."""
    try:
        host = url.host
        url.raw_host.decode().encode("idna")  # as in name resolution, which would raise during a request
    except UnicodeError:
        return False
    return bool(host) and ("%" not in host or ":" in host)  # as in fe80::1%eth0


def checked_base_url(base_url: str, allow_http: bool) -> str:
    """Return the normalized address of an endpoint, without ``/chat/completions``.

    Raises:
        ValueError: It is not a valid URL, or prompts would be sent unencrypted to another machine. The message does not
            quote secrets.
    """
    try:
        url = httpx.URL(base_url.strip().rstrip("/").removesuffix("/chat/completions").rstrip("/"))
        invalid = any(character.isspace() or not character.isprintable() for character in base_url.strip())
    except httpx.InvalidURL:
        invalid = True
    if invalid or (url.raw_host and not names_host(url)):
        raise ValueError(
            f"base_url is not a URL (check for spaces, unusual characters and a port that is not a number); {_EXAMPLE}"
        )
    if url.userinfo or url.query or url.fragment:  # may be secret, so not quoted
        raise ValueError(
            "base_url must not contain a user, query or fragment: put the key into the environment, and a query such "
            'as an api-version into the providers file: query = { "api-version" = "..." }'
        )
    if holds_key(base_url):
        raise ValueError("base_url contains what looks like a key: put the key into the environment")
    if url.scheme not in ("http", "https") or not url.raw_host:
        quoted = "" if "@" in base_url else f" {base_url!r}"
        raise ValueError(f"base_url{quoted} must start with http:// or https:// and name a host: {_EXAMPLE}")
    if url.port is not None and not 1 <= url.port <= 65535:
        raise ValueError(f"base_url has the port {url.port}: a port is from 1 to 65535")
    if url.scheme == "http" and not allow_http and not is_this_machine(str(url)):
        raise ValueError(
            f"base_url {base_url!r} would send prompts unencrypted to another machine: use https, or write "
            "allow_http = true in the providers' file"
        )
    return str(url)


def check_variable(name: str, what: str) -> None:
    """Check that ``name`` is the name of an environment variable.

    Raises:
        ValueError: It is not. It is not quoted, because it may be a key.
    """
    if name not in os.environ and (not _VARIABLE.fullmatch(name) or holds_key(name)):
        raise ValueError(
            f"{what} should name an environment variable, in capitals, such as HOSPITAL_LLM_KEY (the value is not "
            "shown, because it may be the key itself: put keys into the environment)"
        )


def check_headers(headers: Mapping[str, str]) -> None:
    """Check that headers are valid and that secrets come from the environment.

    Raises:
        ValueError: A header is invalid. The message names it; values are not quoted.
    """
    _check_names("headers", headers)
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError(f"headers: {name!r} is not a valid header name: use letters, digits and hyphens")
        if _CLIENT_HEADERS.fullmatch(name):
            raise ValueError(f"headers: {name} is set by the client itself: leave it out")
        variable = variable_of(value)
        if variable is not None:
            check_variable(variable, f"headers: {name} = {_ENV}...")
        elif _SECRET_NAME.search(name):
            raise ValueError(
                f'headers: {name} may be secret: put its value into an environment variable and write "{_ENV}VARIABLE"'
            )


def check_query(query: Mapping[str, str]) -> None:
    """Check that query parameters are valid and not secret.

    Raises:
        ValueError: A parameter is invalid. The message names it; values are not quoted.
    """
    _check_names("query", query)
    for name in query:
        if _SECRET_NAME.search(name):
            raise ValueError(
                f"query: {name} may be secret, and URLs are logged by proxies and servers: send it as a header"
            )


def check_body(body: Mapping[str, Any]) -> None:
    """Check that the fields of every request body are not secret.

    Raises:
        ValueError: A field may be secret. The message names it; values are not quoted.
    """
    pending: list[tuple[str, Any]] = list(body.items())
    while pending:
        name, value = pending.pop()
        if isinstance(value, Mapping):
            pending += value.items()
        elif isinstance(value, list | tuple):
            pending += [(name, item) for item in value]
        elif isinstance(value, str) and _SECRET_NAME.search(name) and not _NOT_SECRET_NAME.search(name):
            raise ValueError(
                f"extra_body: {name} may be secret, and is stored with cached replies: send it as a header"
            )


def _check_names(what: str, table: Mapping[str, str]) -> None:
    for name, value in table.items():
        if not name or not _is_plain(name):
            raise ValueError(f"{what}: {name!r} should be ASCII, without line breaks")
        if not _is_plain(value) or value != value.strip():
            raise ValueError(f"{what}: the value of {name} should be ASCII, without line breaks or surrounding spaces")
        if holds_key(value):
            raise ValueError(f"{what}: {name} contains what looks like a key: put the key into the environment")
    if len({name.lower() for name in table}) < len(table):
        raise ValueError(f"{what}: a name occurs twice: {', '.join(table)}")


def _is_plain(text: str) -> bool:
    return text.isascii() and text.isprintable()


def variable_of(value: str) -> str | None:
    """Return the environment variable that a header's value names (``env:VARIABLE``), or None if it is literal."""
    return value.removeprefix(_ENV) if value.startswith(_ENV) else None


def secret(variable: str, allow_spaces: bool = False) -> str:
    """Return the key in an environment variable, or "" if it is unset or empty.

    Args:
        variable: Name of the variable.
        allow_spaces: Whether the value may contain spaces.

    Raises:
        LLMError: The value cannot be a key. It is not quoted.
    """
    value = os.environ.get(variable, "").strip()
    fault = ""
    if not all("!" <= character <= "~" or (allow_spaces and character == " ") for character in value):
        fault = "it contains spaces, line breaks or non-ASCII characters"
    elif len(value) > 1 and value[0] == value[-1] and value[0] in "'\"`":
        fault = "it has quotation marks around it: leave them out"
    if fault:
        del value  # some tools show local variables with a traceback
        raise LLMError(f"the environment variable {variable} does not contain a valid key: {fault}")
    return value
