"""A judge behind an endpoint: what is asked, how answers are read, failures, retries, the cache, the key."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from duologue.errors import AlignError, ConfigError
from duologue_align.judge.completions import CompletionsClient, Patience
from duologue_align.judge.endpoint import Endpoint, EndpointJudge, size_in_name
from duologue_align.judge.judge import Answer
from duologue_align.judge.rating import Scale
from duologue_align.judge.score_cache import ScoreCache, content_key
from judge_cases import completion, fake_server

ANSWER = Answer("How was your day?", "Long, but good. How was yours?")
QUICK = Patience(timeout_s=0.3, tries=3, first_wait_s=0.01, longest_wait_s=0.05)


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DUOLOGUE_JUDGE_URL", "DUOLOGUE_JUDGE_MODEL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def judge_at(url: str, *, model: str = "big-7b", patience: Patience = QUICK, **options: object) -> EndpointJudge:
    cache, keep_going = options.pop("cache", None), options.pop("keep_going", False)
    endpoint = Endpoint(url=url, model=model, patience=patience, **options)  # type: ignore[arg-type]
    return EndpointJudge(endpoint, cache=cache, keep_going=bool(keep_going))  # type: ignore[arg-type]


def test_a_rating_is_asked_for_and_read() -> None:
    with fake_server(completion(" 1\n")) as server:
        assert judge_at(server.url).score([ANSWER]) == [1.0]
    (request,) = server.requests
    assert request["path"] == "/v1/chat/completions"
    assert request["model"] == "big-7b"
    assert request["temperature"] == 0
    assert json.loads(request["messages"][1]["content"]) == {"user": ANSWER.user, "agent": ANSWER.reply}
    assert server.keys == [None]


def test_probabilities_make_the_rating_a_mean() -> None:
    shares = {"2": math.log(0.6), "1": math.log(0.3), "0": math.log(0.05), "The": math.log(0.05)}
    with fake_server(completion("2", shares)) as server:
        assert judge_at(server.url).score([ANSWER])[0] == pytest.approx(1.5 / 0.95)


def test_probabilities_that_are_mostly_of_other_words_are_not_used() -> None:
    with fake_server(completion("2", {"2": math.log(0.2), "A": math.log(0.7)})) as server:
        assert judge_at(server.url).score([ANSWER]) == [2.0]


def test_the_key_comes_from_the_environment_and_stays_out_of_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sesame-12345")
    with fake_server(401) as server, pytest.raises(AlignError, match=r"HTTP 401.*API key") as caught:
        judge_at(server.url, key_variable="MY_KEY").score([ANSWER])
    assert server.keys == ["Bearer sesame-12345"]
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize("failure", [429, 500, 503, b"<html>busy</html>", b"", b'{"choices": []}', b"[1, 2"])
def test_failures_that_pass_are_tried_again(failure: int | bytes) -> None:
    with fake_server(failure, failure) as server:
        assert judge_at(server.url).score([ANSWER]) == [2.0]
    assert len(server.requests) == 3


def test_a_slow_answer_is_given_up_and_asked_for_again() -> None:
    with fake_server(1.0) as server:
        started = time.monotonic()
        assert judge_at(server.url).score([ANSWER]) == [2.0]
        assert time.monotonic() - started < 0.9
    assert len(server.requests) == 2


def test_an_answer_that_drips_is_given_up() -> None:
    with fake_server() as server:
        client = CompletionsClient(server.url, patience=QUICK)

    class Drip:
        def read1(self, _: int) -> bytes:
            time.sleep(0.02)
            return b" "

    from duologue_align.judge.completions import _read_until

    with pytest.raises(TimeoutError):
        _read_until(Drip(), time.monotonic() + client.patience.timeout_s)


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (500, "HTTP 500.*told to fail.*gave up after 3 tries"),
        (b"garbage", "no JSON .garbage.*gave up after 3 tries"),
        (completion("I cannot say."), "no number from 0 to 2"),
        (completion("7"), "no number from 0 to 2"),
    ],
)
def test_a_failure_that_stays_is_told(failure: object, said: str) -> None:
    with fake_server(failure, failure, failure) as server, pytest.raises(AlignError, match=said):  # type: ignore[arg-type]
        judge_at(server.url).score([ANSWER])
    assert len(server.requests) == 3


@pytest.mark.parametrize(("status", "advice"), [(400, "told to fail"), (404, "model's name"), (302, "HTTP 302")])
def test_a_refusal_is_final(status: int, advice: str) -> None:
    headers = {"Location": "http://127.0.0.1:9/elsewhere"}
    with fake_server(status, headers=headers) as server, pytest.raises(AlignError, match=advice):
        judge_at(server.url).score([ANSWER])
    assert len(server.requests) == 1


def test_no_server_is_told() -> None:
    with fake_server() as server:
        url = server.url
    with pytest.raises(AlignError, match=r"no answer .*is the server up"):
        judge_at(url).score([ANSWER])


def test_retry_after_is_obeyed_up_to_the_longest_wait() -> None:
    assert QUICK.wait_s(1, 0.03) == 0.03
    assert QUICK.wait_s(1, 3600.0) == 0.05
    assert all(0.005 <= QUICK.wait_s(1) <= 0.01 and 0.01 <= QUICK.wait_s(2) <= 0.02 for _ in range(20))
    with fake_server(429, headers={"Retry-After": "0.2"}) as server:
        patience = Patience(timeout_s=1.0, tries=2, first_wait_s=0.0, longest_wait_s=1.0)
        started = time.monotonic()
        judge_at(server.url, patience=patience).score([ANSWER])
        assert time.monotonic() - started >= 0.2


def test_no_more_requests_at_once_than_allowed() -> None:
    answers = [Answer("Hello there.", f"Hello, number {number}.") for number in range(12)]
    with fake_server(*[0.03] * 12) as server:
        assert judge_at(server.url, concurrency=3).score(answers) == [2.0] * 12
    assert 1 < server.most_at_once <= 3
    assert len(server.requests) == 12


def test_scores_are_kept_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "scores.sqlite"
    with fake_server(then=completion("1")) as server:
        assert judge_at(server.url, cache=ScoreCache(path)).score([ANSWER, ANSWER]) == [1.0, 1.0]
        assert len(server.requests) == 1, "the same exchange is asked about once"
        assert judge_at(server.url, cache=ScoreCache(path)).score([ANSWER]) == [1.0]
        assert len(server.requests) == 1
        other = [Answer(ANSWER.user, "Something else.")]
        judge_at(server.url, cache=ScoreCache(path)).score(other)
        judge_at(server.url, cache=ScoreCache(path), scale=Scale(lowest=1, highest=5)).score([ANSWER])
        judge_at(server.url, cache=ScoreCache(path), model="other-7b").score([ANSWER])
        assert len(server.requests) == 4, "another reply, scale or model is another question"
    text = path.read_bytes() + path.with_name("scores.sqlite-wal").read_bytes()
    assert ANSWER.reply.encode() not in text


def test_failures_are_not_kept(tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path / "scores.sqlite")
    with fake_server(500, 500, 500) as server:
        with pytest.raises(AlignError):
            judge_at(server.url, cache=cache).score([ANSWER])
        assert len(cache) == 0
        assert judge_at(server.url, cache=cache).score([ANSWER]) == [2.0]


def test_a_cache_that_is_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "note.txt"
    path.write_text("this is no database, only a note that is long enough to be looked at" * 20)
    with pytest.raises(ConfigError, match=r"note\.txt: cannot keep judge scores there"):
        ScoreCache(path)
    assert issubclass(sqlite3.DatabaseError, sqlite3.Error)


def test_keys_do_not_depend_on_the_order_of_fields() -> None:
    assert content_key({"a": 1, "b": "é"}) == content_key({"b": "é", "a": 1}) != content_key({"a": 1, "b": "e"})


def test_going_on_leaves_an_answer_unjudged(caplog: pytest.LogCaptureFixture) -> None:
    with fake_server(400) as server, caplog.at_level(logging.WARNING):
        scores = judge_at(server.url, keep_going=True, concurrency=1).score([ANSWER, Answer("Hi.", "Hi, you.")])
    assert math.isnan(scores[0])
    assert scores[1] == 2.0
    assert "unjudged" in caplog.text


def test_it_can_be_awaited() -> None:
    with fake_server() as server:
        assert asyncio.run(judge_at(server.url).score_async([ANSWER])) == [2.0]


def test_a_small_model_does_not_rate_unless_forced() -> None:
    with pytest.raises(ConfigError, match=r"0\.5 B parameters.*no reliable rating.*force"):
        judge_at("http://localhost:1/v1", model="Qwen2.5-0.5B-Instruct")
    with pytest.raises(ConfigError, match="no reliable rating"):
        judge_at("http://localhost:1/v1", model="mystery", parameters_b=1.0)
    assert judge_at("http://localhost:1/v1", model="tiny-0.5b", force=True).traits.parameters == 5e8
    assert "rating" in judge_at("http://localhost:1/v1", model="mystery").traits.can


@pytest.mark.parametrize(
    ("name", "size"),
    [("Qwen/Qwen2.5-0.5B-Instruct", 5e8), ("llama3.1:8b", 8e9), ("SmolLM2-135M", 1.35e8), ("gpt-4o", None),
     ("Qwen3-235B-A22B", 2.35e11), ("mistral-large-2407", None), ("phi_1.5b", 1.5e9)],
)  # fmt: skip
def test_the_size_is_read_from_a_name(name: str, size: float | None) -> None:
    assert size_in_name(name) == size


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host/v1", "http://", "http://me:secret@host/v1"])
def test_a_wrong_address_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ConfigError, match="url must be like") as caught:
        judge_at(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: EndpointJudge(Endpoint()),
        lambda: EndpointJudge(Endpoint(url="http://localhost/v1")),
        lambda: Endpoint(concurrency=0),
        lambda: Patience(tries=0),
        lambda: Scale(lowest=1, highest=2),
        lambda: Scale(lowest=0, highest=10),
    ],
)
def test_settings_that_leave_nothing_to_do_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ConfigError):
        make()


@pytest.mark.parametrize(
    ("text", "rating"),
    [("2", 2.0), (" 1.", 1.0), ("1: related", 1.0), ("Rating: 0", 0.0), ("<think>2 or 1?</think>\n1", 1.0),
     ("<think>maybe 2", None), ("between 0 and 2", None), ("1.5", None), ("12", None), ("", None), ("none", None),
     ("2/2", 2.0), ("-1", None)],
)  # fmt: skip
def test_only_a_clear_number_is_a_rating(text: str, rating: float | None) -> None:
    assert Scale().read(text) == rating
