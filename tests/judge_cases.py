"""Judges without a model, and a server on loopback that answers like an OpenAI-compatible one, or badly."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from duologue_align.judge.judge import Ability, Answer, Traits


class LengthJudge:
    """Thinks that longer replies are better."""

    def __init__(self, gives: Ability = "similarity") -> None:
        self.seen: list[Answer] = []
        self._gives = gives

    @property
    def traits(self) -> Traits:
        return Traits(
            name="length",
            gives=self._gives,
            can=frozenset({self._gives}),
            batch=1,
            cost="compute",
            licence="none needed",
        )

    def score(self, answers: Sequence[Answer]) -> list[float]:
        self.seen += answers
        return [float(len(answer.reply)) for answer in answers]


def completion(text: str, log_probs: dict[str, float] | None = None) -> dict[str, Any]:
    """A chat completion with an answer and, maybe, the probabilities of its first token."""
    tops = [{"token": token, "logprob": value} for token, value in (log_probs or {}).items()]
    return {
        "choices": [
            {
                "message": {"role": "assistant", "content": text},
                "logprobs": {"content": [{"token": text, "top_logprobs": tops}]} if tops else None,
            }
        ]
    }


@dataclass
class FakeServer:
    """What a server was asked, and what it shall answer.

    Attributes:
        reply: Makes (status, headers, body) of the number of requests so far, this one not counted, and the request.
    """

    url: str
    reply: Callable[[int, dict[str, Any]], tuple[int, dict[str, str], bytes]]
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


@contextmanager
def fake_server(
    *replies: dict[str, Any] | bytes | int | float,
    then: dict[str, Any] | None = None,
    headers: dict[str, str] | None = None,
) -> Iterator[FakeServer]:
    """Serve replies in order, then one and the same.

    Args:
        replies: A completion, raw bytes, an HTTP status (int), or seconds of silence (float).
        then: Every further answer.
        headers: Sent along with an HTTP status that is an error.
    """

    def reply(number: int, _: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        chosen = replies[number] if number < len(replies) else then or completion("2")
        if isinstance(chosen, float):
            time.sleep(chosen)
            chosen = completion("2")
        if isinstance(chosen, int):
            return chosen, headers or {}, b'{"error": {"message": "told to fail"}}'
        return 200, {}, chosen if isinstance(chosen, bytes) else json.dumps(chosen).encode()

    state = FakeServer(url="", reply=reply)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with state.lock:
                number = len(state.requests)
                state.requests.append({"path": self.path, **body})
                state.keys.append(self.headers.get("Authorization"))
                state.at_once += 1
                state.most_at_once = max(state.most_at_once, state.at_once)
            try:
                status, extra, data = state.reply(number, body)
                self.send_response(status)
                for name, value in extra.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
            except OSError:
                pass
            finally:
                with state.lock:
                    state.at_once -= 1

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
