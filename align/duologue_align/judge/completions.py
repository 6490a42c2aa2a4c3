"""A small client of OpenAI-compatible servers: one request with a deadline, and again when that may help."""

from __future__ import annotations

import asyncio
import http.client
import ipaddress
import json
import random
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from duologue.errors import AlignError, ConfigError

_PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_MOST_BYTES, _CHUNK_BYTES, _EXCERPT = 4 << 20, 1 << 16, 160


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a client waits.

    Attributes:
        timeout_s: For one whole answer.
        tries: Requests for one answer at most.
        first_wait_s: Before the second one; it doubles each time, with up to half of it taken off at random.
        longest_wait_s: Between two, and most that a server's Retry-After is obeyed.
    """

    timeout_s: float = 60.0
    tries: int = 5
    first_wait_s: float = 0.5
    longest_wait_s: float = 30.0

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ConfigError: A value that leaves nothing to do.
        """
        if self.timeout_s <= 0 or self.tries < 1 or self.first_wait_s < 0 or self.longest_wait_s < 0:
            raise ConfigError(f"{self}: timeout_s must be above 0, tries at least 1 and no wait below 0")

    def wait_s(self, tried: int, retry_after_s: float | None = None) -> float:
        """Return how long to wait after so many requests have failed."""
        if retry_after_s is not None:
            return min(self.longest_wait_s, retry_after_s)
        doubled = self.first_wait_s * 2.0 ** (tried - 1)
        return min(self.longest_wait_s, doubled) * random.uniform(0.5, 1.0)


class PassingError(Exception):
    """Something went wrong that another request may put right."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class CompletionsClient:
    """Posts JSON to a server.

    Attributes:
        url: Root of its API, such as http://localhost:8000/v1.
    """

    def __init__(self, url: str, *, key: str | None = None, patience: Patience | None = None) -> None:
        """Check the address.

        Args:
            url: Root of the API.
            key: Sent as a bearer token; never logged, cached or shown in errors.
            patience: How long to wait.

        Raises:
            ConfigError: No http or https address, or one with a password in it.
        """
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
            raise ConfigError(f"the judge's url must be like http://localhost:8000/v1, not {_without_login(parts)!r}")
        self.url, self.patience, self._key = url.rstrip("/"), patience or Patience(), key
        # Servers on this machine are not behind the proxy of the environment; redirects would carry the key elsewhere.
        proxies = [urllib.request.ProxyHandler({})] if _is_loopback(parts.hostname) else []
        self._opener = urllib.request.build_opener(_NoRedirect, *proxies)

    async def post(self, path: str, body: Mapping[str, Any], read: Callable[[Any], Any], executor: Executor) -> Any:
        """Post JSON and read the answer, trying again after a failure that may pass.

        Args:
            path: Below the root, such as /chat/completions.
            body: Plain values.
            read: Makes the result of the decoded answer; raises PassingError where it is no good.
            executor: Threads that wait for the server.

        Raises:
            AlignError: The server refused, or every try failed.
        """
        loop = asyncio.get_running_loop()
        data = json.dumps(body).encode()
        return await self._again(lambda: loop.run_in_executor(executor, self._once, path, data, read), path)

    async def _again(self, attempt: Callable[[], Awaitable[Any]], path: str) -> Any:
        for tried in range(1, self.patience.tries + 1):
            try:
                return await attempt()
            except PassingError as error:
                if tried == self.patience.tries:
                    raise AlignError(
                        f"{self.url}{path}: {error}; gave up after {tried} tries, is the server up and its url right?"
                    ) from error
                await asyncio.sleep(self.patience.wait_s(tried, error.retry_after_s))
        raise AssertionError("unreachable")

    def _once(self, path: str, data: bytes, read: Callable[[Any], Any]) -> Any:
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        if self._key:
            request.add_unredirected_header("Authorization", f"Bearer {self._key}")
        deadline = time.monotonic() + self.patience.timeout_s
        try:
            with self._opener.open(request, timeout=self.patience.timeout_s) as response:
                text = _read_until(response, deadline)
        except urllib.error.HTTPError as error:
            raise self._refusal(error, path) from error
        except (OSError, http.client.HTTPException) as error:
            raise PassingError(_why(error, self.patience.timeout_s)) from error
        try:
            answer = json.loads(text)
        except ValueError as error:
            raise PassingError(f"the answer is no JSON ({_excerpt(text)})") from error
        return read(answer)

    def _refusal(self, error: urllib.error.HTTPError, path: str) -> Exception:
        try:
            detail = _excerpt(error.read(_CHUNK_BYTES))
        except (OSError, http.client.HTTPException):
            detail = "nothing to read"
        finally:
            error.close()
        said = f"HTTP {error.code} {error.reason} ({detail})"
        if error.code in _PASSING:
            return PassingError(said, _seconds(error.headers.get("Retry-After")))
        advice = {
            401: "; set the API key in the environment",
            403: "; set the API key in the environment",
            404: "; check the url and the model's name",
        }.get(error.code, "")
        return AlignError(f"{self.url}{path}: {said}{advice}")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _read_until(response: Any, deadline: float) -> bytes:
    parts: list[bytes] = []
    size = 0
    while part := response.read1(_CHUNK_BYTES):
        parts.append(part)
        size += len(part)
        if time.monotonic() > deadline:
            raise TimeoutError
        if size > _MOST_BYTES:
            raise PassingError(f"the answer is longer than {_MOST_BYTES >> 20} MiB")
    return b"".join(parts)


def _why(error: Exception, timeout_s: float) -> str:
    reason = getattr(error, "reason", error)
    if isinstance(reason, TimeoutError) or isinstance(error, TimeoutError):
        return f"no answer within {timeout_s:g} s"
    return f"no answer ({reason or type(error).__name__})"


def _excerpt(text: bytes) -> str:
    shown = " ".join(text[: 4 * _EXCERPT].decode("utf-8", "replace").split())
    return shown[:_EXCERPT] or "empty"


def _seconds(text: str | None) -> float | None:
    try:
        return max(0.0, float(text)) if text else None
    except ValueError:
        return None


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _without_login(parts: urllib.parse.SplitResult) -> str:
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
