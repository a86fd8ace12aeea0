"""Any program as the LLM: the prompt goes to its standard input, the reply comes from its standard output."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Generator, Sequence

from pmlm_env.llm import LLM, Completion, LLMError, Reply, Request


class Command(LLM):
    """Runs the command in the environment variable ``EXAMPLE_LLM`` once for each prompt.

    The command is no setting, because settings may also come from a run folder, and a folder of somebody else must not
    decide which program runs.

    Args:
        timeout: Time limit for a reply, in seconds.
    """

    def __init__(self, timeout: float = 60.0) -> None:
        """Read the command."""
        self.command = shlex.split(os.environ.get("EXAMPLE_LLM", ""))
        if not self.command:
            raise ValueError("set EXAMPLE_LLM to the command that replies, such as EXAMPLE_LLM='ollama run llama3.2'")
        self.timeout = timeout

    @property
    def identity(self) -> str:
        """What determines the replies: those in a cache are used again only for the same identity."""
        return json.dumps({"kind": "command", "command": self.command})

    def replies(self, requests: Sequence[Request]) -> Generator[dict[int, Reply], None, None]:
        """Yield each reply as soon as it is there, by the index of its request."""
        for index, request in enumerate(requests):
            yield {index: self._reply(request.prompt)}

    def _reply(self, prompt: str) -> Reply:
        """Return the reply, or the reason why there is none; such a prompt is never scored."""
        try:
            done = subprocess.run(self.command, input=prompt, capture_output=True, text=True, timeout=self.timeout)
        except (OSError, subprocess.TimeoutExpired) as error:
            return LLMError(f"{self.command[0]} gave no reply: {error}")
        text = done.stdout.strip()
        if done.returncode or not text:
            return LLMError(f"{self.command[0]} gave no reply (exit code {done.returncode})")
        return Completion(text, prompt_tokens=0, completion_tokens=0, finish_reason="stop")
