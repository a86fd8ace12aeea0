"""One HTTP request to an endpoint: proxies, TLS, bounds on what is read, and the causes of failures in words."""

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

#: Bytes of an answer; a reply of a few thousand tokens has some ten thousand.
_LONGEST_ANSWER = 4_000_000
_PASSING = (httpx.NetworkError, httpx.TimeoutException, httpx.RemoteProtocolError, httpx.DecodingError)
_CERTIFICATE_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
#: What OpenSSL calls a certificate out of its time, and one of another host.
_NOT_YET, _EXPIRED, _OTHER_HOST, _OTHER_ADDRESS = 9, 10, 62, 64


class _UselessAnswer(Exception):
    """The body of an answer cannot be read; the message says why."""


@dataclass(frozen=True)
class Route:
    """The way to an endpoint.

    Attributes:
        url: Where requests go.
        tls: Whose certificates are trusted.
        proxy: The proxy that requests go through, or None.
        proxy_variable: The environment variable that names it.
    """

    url: httpx.URL
    tls: ssl.SSLContext
    proxy: httpx.Proxy | None = None
    proxy_variable: str = ""

    @classmethod
    def to(cls, url: httpx.URL) -> Route:
        """Find the way as the environment says: HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE, and others of their kind.

        Raises:
            LLMError: One of these variables will not do. The message names it.
        """
        variable, proxy_url = _proxy_for(url)
        proxy = _checked_proxy(variable, proxy_url, url.host) if proxy_url else None
        if url.scheme == "https" or (proxy is not None and proxy.url.scheme == "https"):
            tls = _trusted_certificates()
        else:
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts nobody, and is not used
        if proxy is not None and proxy.url.scheme == "https":
            proxy.ssl_context = tls
        return cls(url, tls, proxy, variable)

    @property
    def words(self) -> str:
        """What errors say after the address, as in " through the proxy of HTTPS_PROXY"."""
        return f" through the proxy of {self.proxy_variable}" if self.proxy is not None else ""

    def new_client(self) -> httpx.AsyncClient:
        """Return a client with one connection."""
        return httpx.AsyncClient(
            limits=httpx.Limits(max_connections=1, max_keepalive_connections=1),
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),  # else replies might hang on earlier ones
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
        """Send a request and read its answer, a bounded part of it.

        Args:
            client: One that ``new_client`` has made.
            content: The body.
            headers: Of the request.
            timeout: For connecting, and for each part of the answer.
            patience: Seconds for all of it.
            sent: Set as soon as the endpoint may have seen a part of the request.

        Returns:
            The answer, or what went wrong: an error as a value, since an exception, chained or in a traceback, would
            hold the key.
        """

        async def note(event: str, info: Mapping[str, Any]) -> None:
            if event.endswith("send_request_headers.started") and info["request"].method == b"POST":  # not a CONNECT
                sent.set()

        try:
            request = httpx.Request(
                "POST",
                self.url,
                content=content,
                headers=[(b"Accept-Encoding", b"identity"), *headers.raw],
                extensions={"timeout": timeout.as_dict(), "trace": note},
            )
            answer = await asyncio.wait_for(_exchange(client, request), patience)
        except asyncio.TimeoutError:  # an answer that drips, byte by byte
            return Attempt(error=f"no whole answer within {patience:g} s; see whether the endpoint is up")
        except _UselessAnswer as why:
            return Attempt(error=str(why), useless=True)
        except Exception as error:
            return self._explained(error)
        if answer.status == 407 and self.proxy is not None:
            return Attempt(error=self._refused("HTTP 407"), tokens=(0, 0))
        return answer

    def _explained(self, error: Exception) -> Attempt:
        """Say what went wrong and what to do."""
        causes = list(_causes(error))
        name = type(error).__name__
        for cause in causes:
            if isinstance(cause, ssl.SSLCertVerificationError):
                return Attempt(error=_certificate_fault(cause))
            # Of the class itself: those below it are what sockets that wait, or servers that hang up, leave behind.
            if type(cause) is ssl.SSLError and cause.reason != "UNEXPECTED_EOF_WHILE_READING":
                advice = "see whether the server speaks TLS at this port, or base_url should begin with http://"
                return Attempt(error=f"no TLS connection ({cause.reason}); {advice}")
        if isinstance(error, httpx.ProxyError):
            status = re.match(r"[1-5]\d\d", str(error))
            said = f"HTTP {status[0]}" if status else name
            return Attempt(error=self._refused(said), again=not said.startswith("HTTP 4"))
        if self.proxy is not None and isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            said = f"no connection to the proxy, or through it ({name})"
            return Attempt(error=f"{said}; {self._proxy_advice}", again=True)
        if any(isinstance(cause, socket.gaierror) for cause in causes):
            said = f"no answer ({name}): the host {self.url.host} is unknown"
            return Attempt(error=f"{said}; check base_url and the network", again=True)
        if isinstance(error, _PASSING):
            advice = "see whether the endpoint is up"
            if self.url.scheme == "http" and isinstance(error, httpx.RemoteProtocolError | httpx.ReadError):
                advice += ", or whether base_url should begin with https://"
            return Attempt(error=f"no answer ({name}); {advice}", again=True)
        return Attempt(error=f"no answer ({name}); check base_url")

    def _refused(self, said: str) -> str:
        if said == "HTTP 407":
            user = f"write them into {self.proxy_variable}, as in http://USER:PASSWORD@HOST:PORT"
            return f"the proxy asks for a user and a password ({said}): {user}"
        return f"the proxy refuses ({said}); {self._proxy_advice}"

    @property
    def _proxy_advice(self) -> str:
        return f"check base_url and {self.proxy_variable}, or put {self.url.host} into NO_PROXY"


async def _exchange(client: httpx.AsyncClient, request: httpx.Request) -> Answer:
    response = await client.send(request, stream=True)
    try:
        body = await _body(response)
    except _UselessAnswer:
        if response.status_code < 300:
            raise
        body = b""  # the status says enough
    finally:
        await response.aclose()
    return Answer(response.status_code, response.headers, body)


async def _body(response: httpx.Response) -> bytes:
    raw = bytearray()
    async for part in response.aiter_raw():
        raw += part
        if len(raw) > _LONGEST_ANSWER:
            raise _UselessAnswer("the answer has no end; check base_url")
    packed = [word for word in response.headers.get_list("content-encoding", True) if word.lower() != "identity"]
    return _unpacked(bytes(raw), [word.lower() for word in packed if word])


def _unpacked(raw: bytes, encodings: list[str]) -> bytes:
    # httpx would unpack whatever it is sent, and a few thousand bytes can hold gigabytes.
    is_gzip = encodings in (["gzip"], ["x-gzip"])
    if not encodings or (not is_gzip and raw.lstrip().startswith(b"{")):  # "utf-8": an encoding of another kind
        return raw
    if not is_gzip:
        raise _UselessAnswer("the answer is compressed in a way that nobody asked for; check base_url")
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(raw)) as file:
            body = file.read(_LONGEST_ANSWER + 1)
    except (OSError, EOFError, zlib.error):
        raise httpx.DecodingError("damaged") from None
    if len(body) > _LONGEST_ANSWER:
        raise _UselessAnswer("the answer has no end; check base_url")
    return body


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _certificate_fault(error: ssl.SSLCertVerificationError) -> str:
    said = f"certificate verify failed ({error.verify_message.rstrip('.')})"
    if error.verify_code in (_OTHER_HOST, _OTHER_ADDRESS):
        return f"{said}: write a name into base_url that the certificate holds"
    if error.verify_code in (_NOT_YET, _EXPIRED):
        return f"{said}: the endpoint needs a new one, or this machine's clock is wrong"
    now = next((f"; now {name} is {os.environ[name]}" for name in _CERTIFICATE_VARIABLES if os.environ.get(name)), "")
    return f"{said}: set SSL_CERT_FILE to a PEM file with the certificate of the authority that signed it{now}"


def _trusted_certificates() -> ssl.SSLContext:
    """Return those in SSL_CERT_FILE or SSL_CERT_DIR, as curl and OpenSSL do; certifi's where neither is set."""
    file, folder = (os.environ.get(variable) for variable in _CERTIFICATE_VARIABLES)
    try:
        if file:
            return ssl.create_default_context(cafile=file)
        if folder and any(map(os.path.isdir, folder.split(os.pathsep))):
            return ssl.create_default_context(capath=folder)
    except OSError:
        pass
    if file:
        raise LLMError(f"SSL_CERT_FILE is {file!r}, which is no PEM file with certificates: correct or unset it")
    if folder:
        raise LLMError(f"SSL_CERT_DIR is {folder!r}, which is no folder of certificates: correct or unset it")
    return httpx.create_ssl_context(trust_env=False)


def _proxy_for(url: httpx.URL) -> tuple[str, str]:
    """Return the environment variable that names the proxy for a URL, and what it holds; or nothing twice."""
    proxies = getproxies()
    # Whatever the environment says, a proxy would carry prompts for this machine abroad.
    here = is_this_machine(str(url)) or url.host in ("0.0.0.0", "::") or url.host.endswith(".localhost")
    if here or _goes_without_proxy(url, proxies.get("no", "")):
        return "", ""
    for scheme in (url.scheme, "all"):
        if proxies.get(scheme, "").strip():
            value = proxies[scheme]
            names = (name for name in os.environ if name.lower() == f"{scheme}_proxy" and os.environ[name] == value)
            return next(names, "the system's settings"), value
    return "", ""


def _goes_without_proxy(url: httpx.URL, no_proxy: str) -> bool:
    """Whether NO_PROXY names a URL's host: by name, by ending, by address, or by a range of addresses."""
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
    # Name and password may stand in the value, which is not quoted therefore.
    value = value if "://" in value else f"http://{value}"
    try:
        # httpx 0.27 knows no socks5h; its socks5 leaves the look-up of names to the proxy, too.
        url = httpx.URL(re.sub("^socks5h:", "socks5:", value.strip()))
        usable = names_host(url) and (url.port is None or 1 <= url.port <= 65535)
    except httpx.InvalidURL:
        usable = False
    if not usable or url.scheme not in ("http", "https", "socks5"):
        raise LLMError(f"{variable} names no proxy that can be used; {_cure(variable, host)}")
    if url.scheme == "socks5" and importlib.util.find_spec("socksio") is None:
        raise LLMError(
            f"{variable} names a SOCKS proxy, for which a package is missing: pip install 'httpx[socks]'; or "
            f"{_cure(variable, host)}"
        )
    return httpx.Proxy(url)


def _cure(variable: str, host: str) -> str:
    return f"set {variable} to an address such as http://HOST:PORT or socks5://HOST:PORT, or put {host} into NO_PROXY"
