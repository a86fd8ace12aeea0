"""What is said about an endpoint, on the command line and in a providers file, and keys in the wrong place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pmlm_env.llm import LLMError, LLMOptions, load_llm
from pmlm_env.llm.http.endpoint import OpenAIChat
from tests.llm.conftest import Doctor
from tests.llm.endpoint import KEY, Answer, Endpoint

Run = Callable[..., Doctor]
SECRET = "gw-0123456789"
PASTED = [
    "sk-proj-Ab0123456789cdef",
    "sk_live_Ab0123456789cdef",
    "gsk_Ab0123456789cdefghij",
    "hf_Ab0123456789cdefghij",
    "xai-Ab0123456789cdefghij",
    "AIzaSyAb0123456789cdefghijklmnopqrstuvw",
    "0123456789abcdef0123456789abcdef.Ab0123456789cdef",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJtZSJ9.c2lnbmVk",
]


@pytest.fixture
def provider(endpoint: Endpoint, tmp_path: Path) -> Callable[[str], tuple[str, ...]]:
    """Write a providers file with these settings for the endpoint, and return the arguments that name it."""

    def write(settings: str) -> tuple[str, ...]:
        path = tmp_path / "providers.toml"
        address = "" if "base_url" in settings else f'base_url = "{endpoint.url}"\n'
        path.write_text(f"[ward7]\n{address}{settings}\n", encoding="utf-8")
        return "ward7:m", "--providers", str(path)

    return write


Provider = Callable[[str], tuple[str, ...]]


# Addresses


@pytest.mark.parametrize(
    ("base_url", "words"),
    [
        ("http://127.0.0.1:99999/v1", "has the port 99999: a port is from 1 to 65535"),
        ("http://127.0.0.1:0/v1", "has the port 0: a port is from 1 to 65535"),
        ("http://127.0.0.1:-1/v1", "has the port -1"),
        ("http://127.0.0.1:port/v1", "a port that is not a number"),
        ("http://127.0.0.1:80:80/v1", "a port that is not a number"),
        ("http://127.0.0.1 :80/v1", "check for spaces"),
        ("http://127.0.0.1:80/v 1", "check for spaces"),
        ("http://local\u202ehost:80/v1", "unusual characters"),
        (
            "127.0.0.1:8000/v1",
            "must start with http:// or https:// and name a host: it should look like https://api.openai",
        ),
        (
            "localhost:8000/v1",
            "must start with http:// or https:// and name a host: it should look like https://api.openai",
        ),
        (
            "model.example",
            "must start with http:// or https:// and name a host: it should look like https://api.openai",
        ),
        ("http:/127.0.0.1/v1", "it should look like https://api.openai.com/v1"),
        ("http:///v1", "it should look like https://api.openai.com/v1"),
        ("https://model..example/v1", "unusual characters"),
        ("https://" + "a" * 64 + ".example/v1", "unusual characters"),
        ("https://xn--/v1", "unusual characters"),
        ("https://[::1/v1", "unusual characters"),
        ("https://%6dodel.example/v1", "unusual characters"),
        ("https://model.example/v1?api-version=1", "query = {"),
        ("https://model.example/v1#x", "must not contain a user, query or fragment"),
    ],
)
def test_an_address_that_will_not_do_is_one_line(refused: Run, base_url: str, words: str) -> None:
    code, said = refused("openai:m", "--base-url", base_url, OPENAI_API_KEY=KEY)
    assert code == 2
    assert "base_url" in said
    assert words in said


@pytest.mark.parametrize(
    "base_url",
    [
        "https://me:hunter2@model.example/v1",
        "https://me:hunter2/x@model.example/v1",
        "me:hunter2@model.example/v1",
        "https://hunter2@model.example/v1",
        "https://model.example/v1?key=hunter2",
        "https://model.example:hunter2/v1",
    ],
)
def test_a_password_in_an_address_is_not_quoted(refused: Run, base_url: str) -> None:
    assert "hunter2" not in refused("openai:m", "--base-url", base_url, OPENAI_API_KEY=KEY).said


@pytest.mark.parametrize("end", ["", "/", "/chat/completions", "/chat/completions/"])
def test_an_address_may_end_as_vendors_write_it(endpoint: Endpoint, doctor: Run, end: str) -> None:
    assert doctor("openai:m", "--base-url", endpoint.url + end).code == 0
    assert endpoint.paths == ["/v1/chat/completions"]


def test_a_host_that_nobody_knows_is_named_and_nothing_is_booked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "*")
    llm = OpenAIChat("m", "https://nobody.invalid/v1", tries=2, backoff=0.0)
    with pytest.raises(LLMError, match=r"the host nobody\.invalid is unknown; check base_url and the network"):
        llm.generate(["hello"])
    assert llm.budget.usage.calls == 0


# Headers and query


def test_headers_and_query_of_a_gateway_are_sent(endpoint: Endpoint, doctor: Run, provider: Provider) -> None:
    arguments = provider(
        'headers = { "X-Gateway-Key" = "env:GATEWAY_KEY", "X-Project" = "ward 7" }\n'
        'query = { "api-version" = "2024-10-21", "a&b" = "c=d" }'
    )
    assert doctor(*arguments, GATEWAY_KEY=SECRET).code == 0
    assert endpoint.headers[0]["X-Gateway-Key"] == SECRET
    assert endpoint.headers[0]["X-Project"] == "ward 7"
    assert endpoint.paths == ["/v1/chat/completions?api-version=2024-10-21&a%26b=c%3Dd"]


def test_an_authorization_of_ones_own_takes_the_place_of_the_key(
    endpoint: Endpoint, doctor: Run, provider: Provider
) -> None:
    arguments = provider('headers = { "authorization" = "env:WARD7_BASIC" }')
    assert doctor(*arguments, WARD7_BASIC="Basic bWU6aHVudGVyMg==", WARD7_API_KEY=KEY).code == 0
    sent = {name.lower(): value for name, value in endpoint.headers[0].items()}
    assert sent["authorization"] == "Basic bWU6aHVudGVyMg=="


def test_without_a_variable_for_the_key_none_is_sent_nor_missed(
    endpoint: Endpoint, doctor: Run, provider: Provider
) -> None:
    assert doctor(*provider('api_key_env = ""\nheaders = { "api-key" = "env:AZURE_KEY" }'), AZURE_KEY=SECRET).code == 0
    assert endpoint.headers[0]["api-key"] == SECRET
    assert "authorization" not in {name.lower() for name in endpoint.headers[0]}


def test_a_header_whose_variable_is_not_set_is_named_before_anything_is_sent(
    endpoint: Endpoint, refused: Run, provider: Provider
) -> None:
    code, said = refused(*provider('headers = { "X-Gateway-Key" = "env:GATEWAY_KEY" }'))
    assert (code, endpoint.n_connections) == (1, 0)
    assert "needs the header X-Gateway-Key: put it in the environment variable GATEWAY_KEY" in said


def test_a_header_from_the_environment_is_in_no_error(endpoint: Endpoint, refused: Run, provider: Provider) -> None:
    arguments = provider('headers = { "X-Gateway-Key" = "env:GATEWAY_KEY" }')
    endpoint.script(Answer(400, {"error": {"message": f"no such gateway key: {SECRET}"}}))
    assert "no such gateway key: ***" in refused(*arguments, GATEWAY_KEY=SECRET).said
    for odd in (f"{SECRET}\nx", f"{SECRET}é", f'"{SECRET}"'):
        said = refused(*arguments, GATEWAY_KEY=odd).said
        assert "the environment variable GATEWAY_KEY does not contain a valid key: " in said
        assert SECRET not in said


def test_what_shapes_the_reply_is_in_the_identity_and_secrets_are_not(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_KEY", SECRET)
    spec, _, path = provider(
        'headers = { "X-Gateway-Key" = "env:GATEWAY_KEY", "X-Beta" = "1" }\nquery = { "api-version" = "2" }'
    )
    llm = load_llm(LLMOptions(spec, providers=path)).llm
    identity = json.loads(llm.identity)
    assert (identity["headers"], identity["query"]) == ({"X-Beta": "1"}, {"api-version": "2"})
    assert SECRET not in llm.identity + repr(llm)
    assert "GATEWAY_KEY" not in llm.identity


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            'headers = { "X-Gateway-Key" = "hunter2" }',
            "headers: X-Gateway-Key may be secret: put its value into an env",
        ),
        ('headers = { "Authorization" = "hunter2" }', 'and write "env:VARIABLE"'),
        ('headers = { "X-A" = "hunter2\\r\\nX-B: 1" }', "the value of X-A should be ASCII, without line breaks"),
        ('headers = { "X-A" = "hunter2 é" }', "the value of X-A should be ASCII"),
        ('headers = { "X-A" = " hunter2" }', "without line breaks or surrounding spaces"),
        ('headers = { "X A" = "1" }', "'X A' is not a valid header name"),
        ('headers = { "X-A:" = "1" }', "'X-A:' is not a valid header name"),
        ('headers = { "X-\\u001b[2J" = "1" }', r"'X-\x1b[2J' should be ASCII"),
        ('headers = { "" = "1" }', "'' should be ASCII"),
        ('headers = { "Host" = "hunter2" }', "Host is set by the client itself: leave it out"),
        ('headers = { "content-length" = "3" }', "content-length is set by the client itself"),
        ('headers = { "X-A" = "1", "x-a" = "2" }', "a name occurs twice: X-A, x-a"),
        ('headers = { "X-A" = 1 }', "'X-A' in headers is 1: it should be text, in quotes"),
        ('headers = "X-A: hunter2"', "headers is text: it should be a table"),
        ('headers = { "X-A" = "env:" }', "headers: X-A = env:... should name an environment variable, in capitals"),
        ('headers = { "X-A" = "env:hunter2" }', "should name an environment variable, in capitals"),
        ('query = { "api-version" = 2024-10-21 }', "'api-version' in query is a date or time: it should be text"),
        ('query = { "api-key" = "hunter2" }', "query: api-key may be secret, and URLs are logged by proxies"),
        ('query = { "a" = "hunter2\\n" }', "query: the value of a should be ASCII"),
        ("concurrency = 1000000000", "concurrency is 1000000000: it must be from 1 to 10,000"),
        ("tries = 0", "tries is 0: it must be from 1 to "),
        (
            "requests_per_minute = 1e300",
            "requests_per_minute is 1e+300: it must be positive and at most 1,000,000,000",
        ),
        ("read_timeout = inf", "'read_timeout' is inf, which is not allowed"),
        ("prices = { m = { prompt = 1e300, completion = 1 } }", "should have prompt and completion"),
        ('base_url = "http://127.0.0.1:99999/v1"', "base_url has the port 99999"),
        (
            'extra_body = { api_key = "hunter2" }',
            "extra_body: api_key may be secret, and is stored with cached replies: send it",
        ),
        ('extra_body = { a = [{ token = ["hunter2"] }] }', "extra_body: token may be secret"),
        ('extra_body = { clientSecret = "hunter2" }', "extra_body: clientSecret may be secret"),
        ("extra_body = { day = 2024-10-21 }", "extra_body contains a date or time, which JSON does not support"),
    ],
)
def test_a_setting_that_will_not_do_is_named_with_its_file_and_table(
    refused: Run, provider: Provider, settings: str, words: str
) -> None:
    arguments = provider(settings)
    code, said = refused(*arguments)
    assert code == 2
    assert arguments[-1] in said
    assert words in said
    assert "hunter2" not in said


def test_a_providers_name_that_drives_a_terminal_is_written_out(refused: Run, tmp_path: Path) -> None:
    path = tmp_path / "providers.toml"
    path.write_text('["\\u001b[2J"]\nbase_url = "https://model.example/v1"\n')
    assert r"'\x1b[2J' cannot be the name of a provider" in refused("openai:m", "--providers", str(path)).said


# Keys in the wrong place


@pytest.mark.parametrize("key", [*PASTED, "sk-...", "0123456789abcdef", "ABCDEFGHIJ0123456789", "my key", 'k"', "ключ"])
def test_a_key_in_the_place_of_its_variables_name_is_refused_unquoted(
    refused: Run, provider: Provider, key: str
) -> None:
    code, said = refused(*provider(f"api_key_env = {json.dumps(key)}"))
    assert code == 2
    assert "[ward7]: api_key_env should name an environment variable, in capitals, such as HOSPITAL_LLM_KEY" in said
    assert key not in said


def test_a_variable_that_is_set_may_have_any_name(endpoint: Endpoint, doctor: Run, provider: Provider) -> None:
    assert doctor(*provider('api_key_env = "ward7_key"'), ward7_key=KEY).code == 0
    assert endpoint.headers[0]["Authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("key", PASTED)
def test_a_key_anywhere_else_is_refused_unquoted(refused: Run, provider: Provider, key: str) -> None:
    commands = [
        (key,),
        (f"openai:{key}",),
        ("openai:m", "--base-url", key),
        ("openai:m", "--base-url", f"https://model.example/{key}/v1"),
        ("openai:m", "--base-url", f"https://model.example/v1?key={key}"),
        provider(f'headers = {{ "X-Project" = "{key}" }}'),
    ]
    for arguments in commands:
        code, said = refused(*arguments, OPENAI_API_KEY="x")
        assert code == 2
        assert key not in said
    for settings in (f'extra_body = {{ key = ["{key}"] }}', f'system_prompt = "Use {key}."', f'base_url = "{key}"'):
        code, said = refused(*provider(settings))
        assert "contains what looks like a key: put the key into the environment" in said
        assert key not in said
    for settings in (f'api_key = "{key}"', f'api_key_env = ["{key}"]', f"api_key_env = {key}", f'tries = "{key}"'):
        assert key not in refused(*provider(settings)).said


@pytest.mark.parametrize("key", PASTED)
@pytest.mark.parametrize(
    "form",
    ['[{}]\nbase_url = "x"', '["{}"]\nbase_url = "x"', "{} = 1", '"{}" = "x"', "[ward7]\n{} = 1", '[ward7]\n"{}" = 1'],
)
def test_a_key_in_the_place_of_a_name_is_refused_unquoted(refused: Run, tmp_path: Path, key: str, form: str) -> None:
    path = tmp_path / "providers.toml"
    path.write_text(form.format(key) + "\n")
    code, said = refused("ward7:m", "--providers", str(path))
    assert code == 2
    assert f"{path}: a name looks like a key (not shown): put the key into the environment" in said
    assert not [part for part in key.split(".") if part in said]


def test_parts_of_a_body_that_speak_of_tokens_are_no_secrets(
    endpoint: Endpoint, doctor: Run, provider: Provider
) -> None:
    body = '{ min_tokens = 2, stop_token_ids = [1], prompt_cache_key = "a", template = { eos_token = "</s>" } }'
    assert doctor(*provider(f"extra_body = {body}"), WARD7_API_KEY=KEY).code == 0
    assert endpoint.bodies[0]["prompt_cache_key"] == "a"


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("sk-a b", "contains spaces, line breaks or non-ASCII characters"),
        ("Bearer sk-ab", "contains spaces, line breaks or non-ASCII characters"),
        ("sk-a\nb", "contains spaces, line breaks or non-ASCII characters"),
        ("sk-ab\u200b", "contains spaces, line breaks or non-ASCII characters"),
        ("“sk-ab”", "contains spaces, line breaks or non-ASCII characters"),
        ("'sk-ab'", "has quotation marks around it: leave them out"),
        ('"sk-ab"', "has quotation marks around it: leave them out"),
    ],
)
def test_a_key_that_was_pasted_badly_is_refused_unquoted(
    endpoint: Endpoint, refused: Run, key: str, words: str
) -> None:
    code, said = refused("openai:m", "--base-url", endpoint.url, OPENAI_API_KEY=key)
    assert (code, endpoint.n_connections) == (1, 0)
    assert f"the environment variable OPENAI_API_KEY does not contain a valid key: it {words}" in said
    assert "sk-" not in said


@pytest.mark.parametrize("key", [f" {KEY}", f"{KEY}\n", f"{KEY}\r\n", f"\t{KEY} "])
def test_what_stands_around_a_key_is_left_out(endpoint: Endpoint, doctor: Run, key: str) -> None:
    assert doctor("openai:m", "--base-url", endpoint.url, OPENAI_API_KEY=key).code == 0
    assert endpoint.headers[0]["Authorization"] == f"Bearer {KEY}"


def test_a_models_name_that_drives_a_terminal_is_refused(refused: Run) -> None:
    for name in ("\x1b[2J", "a\nb", "a\u202eb"):
        assert "the model's name contains control characters" in refused(f"openai:{name}", OPENAI_API_KEY=KEY).said
