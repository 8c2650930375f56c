"""What appears is whole, what killed processes left is removed, and nobody's link is followed."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from veil import files

pytestmark = pytest.mark.skipif(not files.LOCKS, reason="nothing tells here what a killed process left")
HIDDEN = ".x.0123456789abcdef.part"


def test_a_file_takes_its_name_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("before")
    with files.written(path) as file:
        file.write(b"after")
        assert path.read_text() == "before"
        (hidden,) = [p for p in tmp_path.iterdir() if p != path]
        assert files.is_hidden(hidden.name)
    assert path.read_text() == "after"
    assert list(tmp_path.iterdir()) == [path]


def test_what_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("before")

    def write() -> None:
        with files.written(path) as file:
            file.write(b"after")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("secret", "mode"), [(True, 0o600), (False, 0o640)])
def test_a_secret_is_for_its_owner_alone(tmp_path: Path, secret: bool, mode: int) -> None:
    path = tmp_path / "x"
    path.touch(0o666)
    mask = os.umask(0o027)
    try:
        with files.written(path, secret=secret) as file:
            assert os.fstat(file.fileno()).st_mode & 0o777 == mode
    finally:
        os.umask(mask)
    assert path.stat().st_mode & 0o777 == mode


def test_what_must_be_the_same_is(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for text in (b"one", b"one"):  # where there is none it is made
        with files.written(path, same=True) as file:
            file.write(text)
    with pytest.raises(FileExistsError), files.written(path, same=True) as file:
        file.write(b"two")
    assert path.read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_in_the_place_of_a_target_is_replaced_and_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("mine")
    (tmp_path / "x").symlink_to(elsewhere)
    with files.written(tmp_path / "x") as file:
        file.write(b"yours")
    assert elsewhere.read_text() == "mine"
    assert not (tmp_path / "x").is_symlink()


def test_names_as_long_as_the_system_takes(tmp_path: Path) -> None:
    for name in ("x" * 255, "é" * 127):
        with files.written(tmp_path / name):
            pass
        assert (tmp_path / name).exists()
        with files.staged(tmp_path / name) as hidden:
            assert hidden.is_dir()


def test_a_folder_takes_its_name_and_the_place_of_another(tmp_path: Path) -> None:
    for text in ("one", "two"):
        with files.staged(tmp_path / "x") as hidden:
            (hidden / "new").mkdir()
            (hidden / "new" / "file").write_text(text)
            files.publish(hidden / "new", tmp_path / "x")
        assert [p.name for p in tmp_path.iterdir()] == ["x"]
        assert (tmp_path / "x" / "file").read_text() == text


def _killed(folder: Path, exchange: bool) -> None:
    """Puts one folder in the place of another, and dies as soon as the other has gone from there."""
    if not exchange:
        files._exchanged = lambda one, other: False
    with files.staged(folder / "x") as hidden:
        (hidden / "new").mkdir()
        (hidden / "new" / "file").write_text("two")
        rename = os.rename

        def last(a: object, b: object, **options: object) -> None:
            rename(a, b, **options)  # type: ignore[arg-type]
            os.kill(os.getpid(), signal.SIGKILL)

        os.rename = last  # type: ignore[assignment]
        files._sync = lambda path: os.kill(os.getpid(), signal.SIGKILL) if path == folder else None
        files.publish(hidden / "new", folder / "x")


@pytest.mark.parametrize("exchange", [True, False])
def test_what_stood_there_is_there_again_after_a_kill(tmp_path: Path, exchange: bool) -> None:
    """Where the system cannot exchange two names there is a moment without: the next run puts back what was there."""
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "file").write_text("one")
    child = multiprocessing.get_context("fork").Process(target=_killed, args=(tmp_path, exchange))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert (tmp_path / "x").exists() == exchange
    assert len(list(tmp_path.glob(".x.*"))) == 1
    files.sweep(tmp_path / "x")
    assert (tmp_path / "x" / "file").read_text() == ("two" if exchange else "one")
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_what_a_killed_process_left_is_removed_and_what_lives_is_not(tmp_path: Path) -> None:
    with files.written(tmp_path / "x") as file:
        file.write(b"of somebody at work")
        with files.written(tmp_path / "x"):  # which sweeps
            pass
        assert files.sweep_folder(tmp_path) == []
    dead = tmp_path / HIDDEN
    dead.mkdir()
    (dead / "file").touch()
    others = [
        tmp_path / name for name in (".y.0123456789abcdef.part", ".x.part", "x.0123456789abcdef.part", ".x.0.part")
    ]
    for other in others:
        other.touch()
    assert files.sweep(tmp_path / "x") == [dead]
    assert all(other.exists() for other in others)
    assert files.sweep_folder(tmp_path) == others[:1]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["x", *(o.name for o in others[1:])])


def test_a_planted_link_of_a_hidden_name_is_left_alone(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "file").touch()
    (tmp_path / HIDDEN).symlink_to(elsewhere)
    assert files.sweep(tmp_path / "x") == []
    assert (elsewhere / "file").exists()


def test_a_folder_goes_from_its_name_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "file").touch()
    monkeypatch.setattr(files.shutil, "rmtree", lambda path, ignore_errors: None)  # killed just then
    files.remove(tmp_path / "x")
    assert not (tmp_path / "x").exists()
    monkeypatch.undo()
    assert len(files.sweep(tmp_path / "x")) == 1
    assert list(tmp_path.iterdir()) == []
    files.remove(tmp_path / "x")  # what is not there
