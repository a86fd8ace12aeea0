"""Sending one HTTP request to an endpoint: proxies, TLS, size limits and error messages."""

from __future__ import annotations

import asyncio
import gzip
import importlib.util
import io
import ipaddress
import os
import re
import socket
import ssl
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any
from urllib.request import getproxies, proxy_bypass

import httpx

from pmlm_env.llm.base import LLMError
from pmlm_env.llm.http.chat_answers import Answer, Attempt
from pmlm_env.llm.http.settings import is_this_machine, names_host

#: Limit on the bytes of an answer; a reply of a few thousand tokens has about ten thousand.
_MAX_ANSWER = 4_000_000
_TRANSIENT = (httpx.NetworkError, httpx.TimeoutException, httpx.RemoteProtocolError, httpx.DecodingError)
_CERTIFICATE_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
#: OpenSSL's codes for certificates that are not valid at this time or for this host.
_NOT_YET, _EXPIRED, _OTHER_HOST, _OTHER_ADDRESS = 9, 10, 62, 64


class _UnreadableAnswer(Exception):
    """The body of an answer cannot be used; the message says why."""


@dataclass(frozen=True)
class Route:
    """How to connect to an endpoint.

    Attributes:
        url: The URL of requests.
        tls: TLS settings with the trusted certificates.
        proxy: The proxy, or None.
        proxy_variable: The environment variable that sets the proxy.
    """

    url: httpx.URL
    tls: ssl.SSLContext
    proxy: httpx.Proxy | None = None
    proxy_variable: str = ""

    @classmethod
    def to(cls, url: httpx.URL) -> Route:
        """Make a route from the environment variables HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE and similar ones.

        Raises:
            LLMError: One of these variables is invalid. The message names it.
        """
        variable, proxy_url = _proxy_for(url)
        proxy = _checked_proxy(variable, proxy_url, url.host) if proxy_url else None
        if url.scheme == "https" or (proxy is not None and proxy.url.scheme == "https"):
            tls = _trusted_certificates()
        else:
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts no certificates; not used
        if proxy is not None and proxy.url.scheme == "https":
            proxy.ssl_context = tls
        return cls(url, tls, proxy, variable)

    @property
    def description(self) -> str:
        """Text for messages after the address, such as " through the proxy of HTTPS_PROXY"."""
        return f" through the proxy of {self.proxy_variable}" if self.proxy is not None else ""

    def new_client(self) -> httpx.AsyncClient:
        """Return a client that uses one connection."""
        return httpx.AsyncClient(
            limits=httpx.Limits(max_connections=1, max_keepalive_connections=1),
            cookies=no_cookies(),
            verify=self.tls,
            proxy=self.proxy,
            trust_env=False,
        )

    async def post(
        self,
        client: httpx.AsyncClient,
        content: str,
        headers: httpx.Headers,
        timeout: httpx.Timeout,
        patience: float,
        sent: asyncio.Event,
    ) -> Answer | Attempt:
        """Send a request and read its answer, up to a size limit.

        Args:
            client: A client from ``new_client``.
            content: The body.
            headers: Headers of the request.
            timeout: Timeouts for connecting and for each part of the answer.
            patience: Time limit for the whole request, in seconds.
            sent: Set as soon as the endpoint may have received a part of the request.

        Returns:
            The answer, or what went wrong. Errors are returned, not raised, because an exception, chained or in a
            traceback, would contain the key.
        """

        async def on_event(event: str, info: Mapping[str, Any]) -> None:
            if event.endswith("send_request_headers.started") and info["request"].method == b"POST":  # not a CONNECT
                sent.set()

        try:
            request = httpx.Request(
                "POST",
                self.url,
                content=content,
                headers=[(b"Accept-Encoding", b"identity"), *headers.raw],
                extensions={"timeout": timeout.as_dict(), "trace": on_event},
            )
            answer = await asyncio.wait_for(_exchange(client, request), patience)
        except asyncio.TimeoutError:  # for example, an answer that arrives byte by byte
            return Attempt(error=f"no complete answer within {patience:g} s; check whether the endpoint is up")
        except _UnreadableAnswer as error:
            return Attempt(error=str(error), unusable=True)
        except Exception as error:
            return self.explain(error)
        if answer.status == 407 and self.proxy is not None:
            return Attempt(error=self._refused("HTTP 407"), tokens=(0, 0))
        return answer

    def explain(self, error: Exception) -> Attempt:
        """Describe an error and what to do about it."""
        causes = list(_causes(error))
        name = type(error).__name__
        for cause in causes:
            if isinstance(cause, ssl.SSLCertVerificationError):
                return Attempt(error=_certificate_fault(cause))
            # This class only: its subclasses come from sockets that wait and servers that close the connection.
            if type(cause) is ssl.SSLError and cause.reason != "UNEXPECTED_EOF_WHILE_READING":
                advice = "check whether the server uses TLS on this port, or base_url should start with http://"
                return Attempt(error=f"no TLS connection ({cause.reason}); {advice}")
        if isinstance(error, httpx.ProxyError):
            status = re.match(r"[1-5]\d\d", str(error))
            problem = f"HTTP {status[0]}" if status else name
            return Attempt(error=self._refused(problem), retry=not problem.startswith("HTTP 4"))
        if self.proxy is not None and isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            problem = f"no connection to the proxy, or through it ({name})"
            return Attempt(error=f"{problem}; {self._proxy_advice}", retry=True)
        if any(isinstance(cause, socket.gaierror) for cause in causes):
            problem = f"no answer ({name}): the host {self.url.host} is unknown"
            return Attempt(error=f"{problem}; check base_url and the network", retry=True)
        if isinstance(error, _TRANSIENT):
            advice = "check whether the endpoint is up"
            if self.url.scheme == "http" and isinstance(error, httpx.RemoteProtocolError | httpx.ReadError):
                advice += ", or whether base_url should start with https://"
            return Attempt(error=f"no answer ({name}); {advice}", retry=True)
        return Attempt(error=f"no answer ({name}); check base_url")

    def _refused(self, problem: str) -> str:
        if problem == "HTTP 407":
            user = f"write them into {self.proxy_variable}, such as http://USER:PASSWORD@HOST:PORT"
            return f"the proxy asks for a user and a password ({problem}): {user}"
        return f"the proxy rejects the request ({problem}); {self._proxy_advice}"

    @property
    def _proxy_advice(self) -> str:
        return f"check base_url and {self.proxy_variable}, or put {self.url.host} into NO_PROXY"


def no_cookies() -> CookieJar:
    """Return a jar that stores no cookies, through which replies might depend on earlier ones."""
    return CookieJar(DefaultCookiePolicy(allowed_domains=[]))


async def _exchange(client: httpx.AsyncClient, request: httpx.Request) -> Answer:
    response = await client.send(request, stream=True)
    try:
        body = await _body(response)
    except _UnreadableAnswer:
        if response.status_code < 300:
            raise
        body = b""  # the status is sufficient
    finally:
        await response.aclose()
    return Answer(response.status_code, response.headers, body)


async def _body(response: httpx.Response) -> bytes:
    raw = bytearray()
    async for part in response.aiter_raw():
        raw += part
        if len(raw) > _MAX_ANSWER:
            raise _UnreadableAnswer("the answer is too large; check base_url")
    encodings_used = [
        word for word in response.headers.get_list("content-encoding", True) if word.lower() != "identity"
    ]
    return _decompressed(bytes(raw), [word.lower() for word in encodings_used if word])


def _decompressed(raw: bytes, encodings: list[str]) -> bytes:
    # httpx would decompress everything, and a few thousand bytes can contain gigabytes.
    is_gzip = encodings in (["gzip"], ["x-gzip"])
    if not encodings or (not is_gzip and raw.lstrip().startswith(b"{")):  # such as "utf-8", which is not a compression
        return raw
    if not is_gzip:
        raise _UnreadableAnswer("the answer has a compression that was not requested; check base_url")
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(raw)) as file:
            body = file.read(_MAX_ANSWER + 1)
    except (OSError, EOFError, zlib.error):
        raise httpx.DecodingError("damaged") from None
    if len(body) > _MAX_ANSWER:
        raise _UnreadableAnswer("the answer is too large; check base_url")
    return body


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _certificate_fault(error: ssl.SSLCertVerificationError) -> str:
    problem = f"certificate verify failed ({error.verify_message.rstrip('.')})"
    if error.verify_code in (_OTHER_HOST, _OTHER_ADDRESS):
        return f"{problem}: use a host name in base_url that the certificate contains"
    if error.verify_code in (_NOT_YET, _EXPIRED):
        return f"{problem}: the endpoint needs a new certificate, or this machine's clock is wrong"
    now = next((f"; now {name} is {os.environ[name]}" for name in _CERTIFICATE_VARIABLES if os.environ.get(name)), "")
    return f"{problem}: set SSL_CERT_FILE to a PEM file with the certificate of the authority that signed it{now}"


def _trusted_certificates() -> ssl.SSLContext:
    """Load certificates from SSL_CERT_FILE or SSL_CERT_DIR, like curl and OpenSSL; from certifi if neither is set."""
    file, folder = (os.environ.get(variable) for variable in _CERTIFICATE_VARIABLES)
    try:
        if file:
            return ssl.create_default_context(cafile=file)
        if folder and any(map(os.path.isdir, folder.split(os.pathsep))):
            return ssl.create_default_context(capath=folder)
    except OSError:
        pass
    if file:
        raise LLMError(f"SSL_CERT_FILE is {file!r}, which is not a PEM file with certificates: correct or unset it")
    if folder:
        raise LLMError(f"SSL_CERT_DIR is {folder!r}, which is not a folder of certificates: correct or unset it")
    return httpx.create_ssl_context(trust_env=False)


def _proxy_for(url: httpx.URL) -> tuple[str, str]:
    """Return the environment variable that sets the proxy for a URL, and its value; both "" if there is none."""
    proxies = getproxies()
    # Never for this machine: a proxy would carry its prompts elsewhere.
    local = is_this_machine(str(url)) or url.host in ("0.0.0.0", "::") or url.host.endswith(".localhost")
    if local or _bypasses_proxy(url, proxies.get("no", "")):
        return "", ""
    for scheme in (url.scheme, "all"):
        if proxies.get(scheme, "").strip():
            value = proxies[scheme]
            names = (name for name in os.environ if name.lower() == f"{scheme}_proxy" and os.environ[name] == value)
            return next(names, "the system's settings"), value
    return "", ""


def _bypasses_proxy(url: httpx.URL, no_proxy: str) -> bool:
    """Whether NO_PROXY contains a URL's host: by name, suffix, address or address range."""
    try:
        address = ipaddress.ip_address(url.host)
    except ValueError:
        address = None
    host = f"[{url.host}]" if ":" in url.host else url.host
    if proxy_bypass(f"{host}:{url.port or (443 if url.scheme == 'https' else 80)}"):
        return True
    for entry in no_proxy.replace(",", " ").split():
        if entry == "*" or (entry.startswith("*.") and url.host.endswith(entry[1:].lower())):
            return True
        try:
            network = ipaddress.ip_network(entry.strip("[]"), strict=False)
        except ValueError:
            continue
        if address is not None and address in network:
            return True
    return False


def _checked_proxy(variable: str, value: str, host: str) -> httpx.Proxy:
    # Not quoted in messages, because the value may contain a user name and password.
    value = value if "://" in value else f"http://{value}"
    try:
        # httpx 0.27 does not support socks5h, but its socks5 also leaves name resolution to the proxy.
        url = httpx.URL(re.sub("^socks5h:", "socks5:", value.strip()))
        usable = names_host(url) and (url.port is None or 1 <= url.port <= 65535)
    except httpx.InvalidURL:
        usable = False
    if not usable or url.scheme not in ("http", "https", "socks5"):
        raise LLMError(f"{variable} is not a valid proxy; {_proxy_hint(variable, host)}")
    if url.scheme == "socks5" and importlib.util.find_spec("socksio") is None:
        raise LLMError(
            f"{variable} is a SOCKS proxy, which needs another package: pip install 'httpx[socks]'; or "
            f"{_proxy_hint(variable, host)}"
        )
    return httpx.Proxy(url)


def _proxy_hint(variable: str, host: str) -> str:
    return f"set {variable} to an address such as http://HOST:PORT or socks5://HOST:PORT, or put {host} into NO_PROXY"
