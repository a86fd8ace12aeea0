"""The server: ``pmlm-openenv``, or ``python -m pmlm_openenv.server.app``."""

from __future__ import annotations

import argparse
import ipaddress
import json
import logging
import os
from collections.abc import Mapping
from functools import partial
from typing import Any

from fastapi import FastAPI
from openenv.core.env_server.http_server import create_fastapi_app
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from pmlm_env.envs.text import TextEnvs
from pmlm_openenv.models import EditAction, EditObservation
from pmlm_openenv.server.environment import Judge, PMLMEnvironment

logger = logging.getLogger(__name__)

#: The environment variable with the arguments of ``PMLM-v0`` as JSON.
OPTIONS = "PMLM_OPENENV_OPTIONS"
#: The environment variable with the maximum number of sessions.
SESSIONS = "PMLM_OPENENV_SESSIONS"
MAX_SESSIONS = 64

#: Largest message of a client, in bytes; the longest list of numbers takes about 0.1 MB.
_LARGEST_MESSAGE = 2**20


class NoBrowsers:
    """Refuses requests of web pages, which browsers mark with an ``Origin``: a page must not read patients' prompts.

    Args:
        app: The application behind.
    """

    def __init__(self, app: ASGIApp) -> None:
        """Store the application."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] in ("http", "websocket") and "origin" in Headers(scope=scope):
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            else:
                await send({"type": "http.response.start", "status": 403, "headers": []})
                await send({"type": "http.response.body", "body": b"requests of web pages are refused"})
            return
        await self.app(scope, receive, send)


def make_app(options: Mapping[str, Any], max_sessions: int = MAX_SESSIONS) -> FastAPI:
    """Make the application; the models load at the first use.

    Args:
        options: Arguments of ``PMLM-v0``; see ``pmlm_env.envs.text.TextEnvs``.
        max_sessions: Maximum number of sessions at once.

    Raises:
        ValueError: An argument is unknown, has the wrong type, or has no effect.
    """
    envs = TextEnvs(**options)
    app = create_fastapi_app(
        partial(PMLMEnvironment, envs, Judge(envs)), EditAction, EditObservation, max_concurrent_envs=max_sessions
    )
    app.add_middleware(NoBrowsers)
    return app


def __getattr__(name: str) -> FastAPI:
    """Make ``app`` when a server such as uvicorn asks for it, of the environment variables."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return make_app(_read(os.environ.get(OPTIONS, "{}")), int(os.environ.get(SESSIONS, MAX_SESSIONS)))


def _read(text: str) -> dict[str, Any]:
    try:
        options = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"the options are not JSON: {error}") from None
    if not isinstance(options, dict):
        raise ValueError('the options should be a JSON object, such as {"llm": "responder"}')
    return options


def main() -> None:
    """Run the server until it is stopped."""
    import uvicorn

    parser = argparse.ArgumentParser(description="Serve PMLM-v0 in words to OpenEnv's clients.")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (this machine only)")
    parser.add_argument("--port", type=int, default=8000, help="the port (8000); 0 = any that is free")
    parser.add_argument(
        "--max-sessions", type=int, default=int(os.environ.get(SESSIONS, MAX_SESSIONS)), help="sessions at once (64)"
    )
    parser.add_argument(
        "--options",
        default=os.environ.get(OPTIONS, "{}"),
        help='arguments of PMLM-v0 as JSON: {"episodes": "prepared"}',
    )
    given = parser.parse_args()
    if given.max_sessions < 1:
        parser.error(f"--max-sessions is {given.max_sessions}: use 1 or more")
    try:
        app = make_app(_read(given.options), given.max_sessions)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    if not _is_loopback(given.host):
        logger.warning("Whoever reaches %s gets patients' prompts: there is no password", given.host)
    uvicorn.run(app, host=given.host, port=given.port, ws_max_size=_LARGEST_MESSAGE)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


if __name__ == "__main__":
    main()
