"""A file and a folder are replaced whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from duologue.errors import ConfigError
from duologue.replacing import replace_file, replacing, replacing_folder


def test_a_failure_keeps_the_old_file_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    replace_file(path, b"old")

    def fail() -> None:
        with replacing(path) as partial:
            partial.write_bytes(b"half")
            raise RuntimeError("the power went out")

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_success_replaces(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"old")
    replace_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        replace_file(tmp_path / "none" / "a.txt", b"x")


def _fill(path: Path, text: str, *, fails: bool = False, marker: str | None = None) -> None:
    with replacing_folder(path, marker=marker) as fresh:
        (fresh / "config.json").write_text(text)
        (fresh / "config.json").chmod(0o600)
        if fails:
            raise KeyboardInterrupt


def test_a_folder_appears_whole_and_is_replaced_only_where_its_marker_is(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "bundle"
    with pytest.raises(KeyboardInterrupt):
        _fill(folder, "half", fails=True)
    assert list(folder.parent.iterdir()) == []
    _fill(folder, "old")
    with pytest.raises(ConfigError, match="not an empty folder"):
        _fill(folder, "new")
    with pytest.raises(ConfigError, match=r"nor one with a weights\.bin"):
        _fill(folder, "new", marker="weights.bin")
    with pytest.raises(KeyboardInterrupt):
        _fill(folder, "half", fails=True, marker="config.json")
    assert (folder / "config.json").read_text() == "old"
    _fill(folder, "new", marker="config.json")
    assert (folder / "config.json").read_text() == "new"
    assert [path.name for path in folder.parent.iterdir()] == ["bundle"]


def test_the_old_folder_returns_when_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, rename = tmp_path / "bundle", Path.rename
    _fill(folder, "old")

    def refuse_fresh(self: Path, target: Path) -> Path:
        if self.name == "fresh":
            raise OSError("the disk went away")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse_fresh)
    with pytest.raises(OSError, match="went away"):
        _fill(folder, "new", marker="config.json")
    assert (folder / "config.json").read_text() == "old"


def test_a_folder_that_somebody_filled_meanwhile_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"

    def race() -> None:
        with replacing_folder(folder) as fresh:
            (fresh / "config.json").write_text("ours")
            folder.mkdir()
            (folder / "config.json").write_text("theirs")

    with pytest.raises(OSError, match="not empty"):
        race()
    assert (folder / "config.json").read_text() == "theirs"


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_the_files_of_a_folder_follow_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        _fill(tmp_path / "bundle", "new")
    finally:
        os.umask(before)
    assert (tmp_path / "bundle" / "config.json").stat().st_mode & 0o777 == 0o666 & ~umask
