"""Replies through an endpoint's batch API: cheaper than single requests, and within a day."""

from __future__ import annotations

import hashlib
import json
import logging
import time
import uuid
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from pmlm_env.io.checked_files import read_object
from pmlm_env.io.files import write_json
from pmlm_env.llm.base import LLM, Completion, LLMError, Reply, Request
from pmlm_env.llm.http.batch_api import ENDED, ENDPOINT, MOST_BYTES, MOST_REQUESTS, Batch, BatchAPI
from pmlm_env.llm.http.chat_answers import Answer, Attempt
from pmlm_env.llm.http.endpoint import OpenAIChat
from pmlm_env.llm.storage.budget import BudgetExceededError
from pmlm_env.llm.storage.cache import ReplyCache, request_key

_logger = logging.getLogger(__name__)
#: Seconds between two looks at the batches: at first, and at most.
_FIRST_PAUSE, _LONGEST_PAUSE = 5.0, 60.0
#: Replies that are passed on, and stored, at once.
_AT_ONCE = 500
#: Looks at a batch that has ended with replies, but does not name their file yet, before the command gives up.
_MOST_LATE = 10
#: Codes of requests that were never run, and are not billed.
_NOT_RUN = frozenset({"batch_expired", "batch_cancelled"})


class BatchChat(LLM):
    """An endpoint that is asked through its batch API; its replies are those to single requests, and cached as such.

    Batches under way are listed in a file before they are created. After a kill, an object with the same file and
    requests goes on with them instead of paying again. Every request is booked at its upper bound before it is sent. A
    batch stays listed, and its files stay at the endpoint, until the replies to all its requests are stored, also those
    that only another command asks for.

    Args:
        chat: The endpoint, with its budget.
        file: The list of batches under way.
        cache: Where the caller stores replies, as ``CachedLLM`` does.
        size: Maximum number of requests in a batch.

    Raises:
        ValueError: ``size`` is out of range.
    """

    def __init__(self, chat: OpenAIChat, file: Path, cache: ReplyCache, size: int = MOST_REQUESTS) -> None:
        """Store the arguments; nothing is sent yet."""
        if not 1 <= size <= MOST_REQUESTS:
            raise ValueError(f"--batch is {size}: use a number of requests from 1 to {MOST_REQUESTS:,}")
        self.chat, self.size, self._cache = chat, size, cache
        self._under_way = UnderWay(file, chat.identity)

    @property
    def identity(self) -> str:
        """The endpoint's identity."""
        return self.chat.identity

    @property
    def is_remote(self) -> bool:
        """Whether the endpoint is on another machine."""
        return self.chat.is_remote

    def replies(self, requests: Sequence[Request]) -> Generator[dict[int, Reply], None, None]:
        """Yield replies as batches end; closing the generator leaves batches under way, to go on with later.

        Raises:
            LLMError: The endpoint refuses, or does not answer; batches under way stay listed.
            ValueError: The list of batches is damaged.
            BudgetExceededError: The remaining requests were not sent.
            DatabaseError: The cache is damaged.
        """
        missing = {request_key(self.identity, request): index for index, request in enumerate(requests)}
        with closing(BatchAPI(self.chat)) as api:
            batches = self._resumed(api, requests, missing)
            known = {name for token in batches for name in self._under_way.names(token)}
            refusal = None
            for chunk in self._chunks({name: requests[i] for name, i in missing.items() if name not in known}):
                refusal = self._send(api, chunk, batches)
                if refusal is not None:
                    break
            pause, late = _FIRST_PAUSE, Counter[str]()
            while batches:
                for token in list(batches):
                    batches[token] = api.retrieve(batches[token].id)
                    if batches[token].lacks_replies:  # its replies are billed: they must not be asked again
                        late[token] += 1
                        if late[token] > _MOST_LATE:
                            raise LLMError(self._unreadable(batches[token], "it does not name their file"))
                    elif batches[token].status in ENDED:
                        yield from self._finished(api, token, batches.pop(token), requests, missing)
                        pause = _FIRST_PAUSE
                if batches:
                    done = sum(batch.done for batch in batches.values())
                    _logger.info("%d batches under way; %d requests in them are done", len(batches), done)
                    time.sleep(pause)
                    pause = min(2 * pause, _LONGEST_PAUSE)
        if refusal is not None:
            raise refusal

    def _resumed(self, api: BatchAPI, requests: Sequence[Request], missing: Mapping[str, int]) -> dict[str, Batch]:
        """Return the batches under way, by their tokens, except those of which only other commands need replies."""
        found: dict[str, Batch] = {}
        n_others = 0
        for token, batch_id in self._under_way.batches():
            others = self._others(token, missing)
            if others and missing.keys().isdisjoint(self._under_way.names(token)):
                n_others += len(others)
                continue
            try:
                batch = api.retrieve(batch_id) if batch_id else api.find(token)
            except LLMError as error:
                raise LLMError(
                    f"{error}; {self._under_way.file} lists batches that may be under way: if there are none at the "
                    "endpoint, remove the file"
                ) from None
            if batch is None:  # the process was killed before it was created
                names = self._under_way.names(token)
                api.delete(self._under_way.uploaded(token))
                self._under_way.keep(token, others)
                self._release([requests[missing[name]] for name in names if name in missing])
            else:
                self._under_way.add(token, self._under_way.names(token), batch.id)
                found[token] = batch
        if n_others:
            _logger.warning(
                "%s lists batches with %d requests of another command, which are left alone: run that command again to "
                "store their replies",
                *(self._under_way.file, n_others),
            )
        return found

    def _others(self, token: str, missing: Mapping[str, int]) -> list[str]:
        """Return those requests of a batch that only other commands ask for, and whose replies are not stored."""
        names = [name for name in self._under_way.names(token) if name not in missing]
        stored = self._cache.holds(names)
        return [name for name in names if name not in stored]

    def _chunks(self, requests: Mapping[str, Request]) -> Iterator[dict[str, tuple[Request, bytes]]]:
        """Yield the requests and lines of each batch's file by their names."""
        chunk: dict[str, tuple[Request, bytes]] = {}
        size = 0
        for name, request in requests.items():
            line = {"custom_id": name, "method": "POST", "url": ENDPOINT, "body": self.chat.body(request)}
            content = json.dumps(line).encode() + b"\n"
            if chunk and (len(chunk) == self.size or size + len(content) > MOST_BYTES):
                yield chunk
                chunk, size = {}, 0
            chunk[name] = request, content
            size += len(content)
        if chunk:
            yield chunk

    def _send(
        self, api: BatchAPI, chunk: Mapping[str, tuple[Request, bytes]], batches: dict[str, Batch]
    ) -> BudgetExceededError | None:
        """Create a batch of as many requests as the budget allows, and return why it does not allow all."""
        booked: list[str] = []
        refusal = None
        for name, (request, _) in chunk.items():
            try:
                self.chat.budget.reserve(self.chat.billed_text(request), self.chat.max_tokens)
            except BudgetExceededError as error:
                refusal = error
                break
            booked.append(name)
        if booked:
            token = uuid.uuid4().hex
            try:
                file = api.upload(chunk[name][1] for name in booked)
            except BaseException:
                self._release([chunk[name][0] for name in booked])
                raise
            self._under_way.add(token, booked, file=file)
            batches[token] = api.create(file, token)
            self._under_way.add(token, booked, batches[token].id)
            _logger.info("A batch of %d requests is under way, which may take a day", len(booked))
        return refusal

    def _finished(
        self, api: BatchAPI, token: str, batch: Batch, requests: Sequence[Request], missing: dict[str, int]
    ) -> Generator[dict[int, Reply], None, None]:
        """Yield the replies and errors of a batch that has ended, take them from ``missing``, and book what they cost.

        Replies are booked once they are stored, and errors once the batch is no longer listed. A kill in between leaves
        requests at their upper bounds, and lets none be booked twice.
        """
        ours = {name: missing.pop(name) for name in self._under_way.names(token) if name in missing}
        waiting = dict(ours)
        failed: dict[int, tuple[Attempt, bool]] = {}
        replied: dict[int, Attempt] = {}
        for file in batch.files:
            for line in self._lines(api, batch, file):
                index = waiting.pop(line["custom_id"], None) if isinstance(line.get("custom_id"), str) else None
                if index is None:  # of a reply that is stored already, or of another command, or repeated
                    continue
                attempt, was_run = self._read(line, requests[index].prompt)
                if attempt.reply is None:
                    failed[index] = attempt, was_run
                    continue
                replied[index] = attempt
                if len(replied) == _AT_ONCE:
                    yield from self._stored(requests, replied)
                    replied = {}
        yield from self._stored(requests, replied)
        others = self._others(token, ours)
        self._under_way.keep(token, others)
        why = f"{batch.error} (look up details there)" if batch.error else "it has no answer to this request"
        reason = f"the batch {batch.id} is {batch.status}: {why}"
        failed |= {index: (Attempt(error=reason, tokens=(0, 0)), False) for index in waiting.values()}
        for index, (attempt, was_run) in failed.items():
            self._settle(requests[index], attempt, was_run)
        if failed:
            where = f"{self.chat.model} at {self.chat.base_url}"
            yield {index: LLMError(f"{where}: {attempt.error}") for index, (attempt, _) in failed.items()}
        if not others:
            api.delete([batch.input_file, *batch.files])

    def _lines(self, api: BatchAPI, batch: Batch, file: str) -> Iterator[dict[str, Any]]:
        try:
            yield from api.lines(file)
        except LLMError as error:
            raise LLMError(self._unreadable(batch, str(error))) from None

    def _unreadable(self, batch: Batch, why: str) -> str:
        return (
            f"the replies of the batch {batch.id} cannot be read ({why}): run the command again later; if the endpoint "
            f"has them no more, take the batch out of {self._under_way.file}, and they are asked and paid for again"
        )

    def _stored(
        self, requests: Sequence[Request], replied: Mapping[int, Attempt]
    ) -> Generator[dict[int, Reply], None, None]:
        """Yield replies, which the caller stores, and book what they cost."""
        completions = {index: each.reply for index, each in replied.items() if isinstance(each.reply, Completion)}
        if completions:
            yield dict(completions)
        for index, attempt in replied.items():
            self._settle(requests[index], attempt, was_run=True)

    def _read(self, line: Mapping[str, Any], prompt: str) -> tuple[Attempt, bool]:
        """Interpret a line of a file of replies or errors; also return whether the request was run."""
        response, error = line.get("response"), line.get("error")
        if isinstance(error, dict) and error.get("code") in _NOT_RUN:
            return Attempt(
                error=f"the request was not run ({error['code']}): run the command again", tokens=(0, 0)
            ), False
        if isinstance(response, dict) and isinstance(response.get("status_code"), int):
            status, body = response["status_code"], response.get("body")
        else:
            status, body = 400, {"error": error if isinstance(error, dict) else {"message": "no response"}}
        return self.chat.read(Answer(status, {}, json.dumps(body).encode()), prompt), True

    def _settle(self, request: Request, attempt: Attempt, was_run: bool) -> None:
        if attempt.tokens is not None:  # otherwise the upper bound stays booked
            bound = self.chat.budget.bound(self.chat.billed_text(request), self.chat.max_tokens)
            self.chat.budget.settle(bound, *attempt.tokens, calls=int(was_run))

    def _release(self, requests: Sequence[Request]) -> None:
        for request in requests:
            self._settle(request, Attempt(tokens=(0, 0)), was_run=False)


class UnderWay:
    """A file that lists the batches under way: their tokens, names at the endpoint, and requests.

    Args:
        file: The file; missing if no batch is under way.
        identity: The identity of the LLM; batches of others are left alone.
    """

    def __init__(self, file: Path, identity: str) -> None:
        """Store the arguments; nothing is read yet."""
        self.file, self._llm = file, hashlib.sha256(identity.encode()).hexdigest()

    def batches(self) -> list[tuple[str, str | None]]:
        """Return the token of each batch, and its name at the endpoint, or None if it may not have been created.

        Raises:
            ValueError: The file is damaged.
        """
        return [(token, each["id"]) for token, each in self._content().items() if each["llm"] == self._llm]

    def names(self, token: str) -> list[str]:
        """Return the names of a batch's requests: their keys in the cache, from which no prompt can be read."""
        names: list[str] = self._content()[token]["requests"]
        return names

    def uploaded(self, token: str) -> list[str]:
        """Return the file of a batch that may not have been created; none in lists of earlier versions."""
        file = self._content()[token].get("file")
        return [file] if file else []

    def add(self, token: str, names: Sequence[str], batch: str | None = None, *, file: str | None = None) -> None:
        """List a batch with its file, or add its name at the endpoint, which knows its file."""
        listed = {"llm": self._llm, "id": batch, "requests": list(names)}
        write_json(self.file, {**self._content(), token: listed if file is None else {**listed, "file": file}})

    def keep(self, token: str, names: Sequence[str]) -> None:
        """List only these requests of a batch; without any, take the batch off the list."""
        content = self._content()
        batch = content.pop(token)
        if names:
            content[token] = {**batch, "requests": list(names)}
        if content:
            write_json(self.file, content)
        else:
            self.file.unlink()

    def _content(self) -> dict[str, Any]:
        if not self.file.exists():
            return {}
        cure = "restore it from a copy, or, if no batch is under way at the endpoint, remove it"
        content = read_object(self.file, cure, _LARGEST_LIST)
        for each in content.values():
            whole = isinstance(each, dict) and each.keys() - {"file"} == {"llm", "id", "requests"}
            texts = whole and isinstance(each["id"], str | None) and isinstance(each.get("file"), str | None)
            if not texts or not isinstance(each["requests"], list):
                raise ValueError(f"{self.file} is damaged: {cure}")
        return dict(content)


#: Size limit of the list in bytes: a few million requests.
_LARGEST_LIST = 2**29
