"""Scores kept on disk, so that no exchange is paid for twice."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from pathlib import Path
from typing import Any

from duologue.errors import ConfigError

_TABLE = "CREATE TABLE IF NOT EXISTS scores (key TEXT PRIMARY KEY, score REAL NOT NULL) WITHOUT ROWID"


class ScoreCache:
    """Scores by the hash of everything they depend on, in one SQLite file; processes and threads may share it."""

    def __init__(self, path: str | Path) -> None:
        """Open or create the file.

        Args:
            path: Its path; missing folders are made.

        Raises:
            ConfigError: It cannot be opened, or is something else.
        """
        self.path = Path(path)
        self._lock = threading.Lock()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(self.path, timeout=30.0, check_same_thread=False, isolation_level=None)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute(_TABLE)
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(f"{path}: cannot keep judge scores there ({error}); give another file") from error

    def get(self, key: str) -> float | None:
        """Return the score kept under a key, or None."""
        with self._lock:
            row = self._database.execute("SELECT score FROM scores WHERE key = ?", (key,)).fetchone()
        return None if row is None else float(row[0])

    def put(self, key: str, score: float) -> None:
        """Keep a score; a later one under the same key replaces it."""
        with self._lock:
            self._database.execute("INSERT OR REPLACE INTO scores VALUES (?, ?)", (key, score))

    def __len__(self) -> int:
        """Number of scores."""
        with self._lock:
            return int(self._database.execute("SELECT count(*) FROM scores").fetchone()[0])

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()


def content_key(content: Any) -> str:
    """Return the SHA-256 of plain values, the same for dicts in another order."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
