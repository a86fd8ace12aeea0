from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import stat
import threading
from pathlib import Path

import pytest

from pmlm_env.io.files import append, locked, make_folder, replacing, stamp, write

FORK = multiprocessing.get_context("fork")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_is_its_owners_alone_from_its_first_moment_and_takes_its_place_when_it_is_whole(tmp_path: Path) -> None:
    write(tmp_path / "a", "old")
    (tmp_path / "a").chmod(0o644)
    with replacing(tmp_path / "a") as file:
        file.write(b"new")
        file.flush()
        assert [mode(path) for path in tmp_path.iterdir() if path.name != "a"] == [0o600]
        assert (tmp_path / "a").read_text() == "old"
    assert (tmp_path / "a").read_text() == "new"
    assert mode(tmp_path / "a") == 0o600
    assert os.listdir(tmp_path) == ["a"]


def test_what_cannot_be_written_to_its_end_leaves_the_old_file(tmp_path: Path) -> None:
    write(tmp_path / "a", "old")

    def task() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        with pytest.raises(OSError, match="File too large") as caught:
            write(tmp_path / "a", "x" * 20_000)
        assert caught.value.filename == str(tmp_path / "a")

    child = FORK.Process(target=task)
    child.start()
    child.join()
    assert child.exitcode == 0
    assert (tmp_path / "a").read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]


def test_a_line_is_added_whole_or_not_at_all(tmp_path: Path) -> None:
    append(tmp_path / "a", "one")
    assert mode(tmp_path / "a") == 0o600

    def task() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        with pytest.raises(OSError, match="File too large"):
            append(tmp_path / "a", "x" * 20_000)
        append(tmp_path / "a", "two")

    child = FORK.Process(target=task)
    child.start()
    child.join()
    assert child.exitcode == 0
    assert (tmp_path / "a").read_text() == "one\ntwo\n"


def test_a_device_is_written_and_not_replaced() -> None:
    before = os.stat(os.devnull).st_ino
    write(Path(os.devnull), "text")
    assert os.stat(os.devnull).st_ino == before


def test_half_a_pair_of_letters_is_written_as_json_reads_it(tmp_path: Path) -> None:
    write(tmp_path / "a", '"\ud800"')
    assert (tmp_path / "a").read_text() == '"\\ud800"'


def test_a_folder_is_its_owners_alone_and_its_parents_are_not(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        make_folder(tmp_path / "a" / "b")
    finally:
        os.umask(before)
    assert (mode(tmp_path / "a"), mode(tmp_path / "a" / "b")) == (0o755, 0o700)


def test_a_killed_process_lets_go_of_its_folder(tmp_path: Path) -> None:
    here, there = FORK.Pipe()

    def task() -> None:
        with locked(tmp_path):
            there.send("mine")
            signal.pause()

    child = FORK.Process(target=task)
    child.start()
    assert here.recv() == "mine"
    with pytest.raises(ValueError, match="is in use by another pmlm command"), locked(tmp_path / "."):
        pass
    os.kill(child.pid or 0, signal.SIGKILL)
    child.join()
    with locked(tmp_path):
        pass


def test_a_thread_may_take_its_folder_again_and_another_thread_may_not(tmp_path: Path) -> None:
    caught: list[Exception] = []

    def other() -> None:
        try:
            with locked(tmp_path):
                pass
        except ValueError as error:
            caught.append(error)

    with locked(tmp_path):
        with locked(tmp_path):
            pass
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert len(caught) == 1
    with locked(tmp_path):
        pass


def test_a_stamp_tells_a_file_that_was_put_in_the_place_of_another_of_its_size(tmp_path: Path) -> None:
    write(tmp_path / "a", "one")
    before = stamp(tmp_path / "a"), stamp(tmp_path)
    assert (stamp(tmp_path / "a"), stamp(tmp_path)) == before
    write(tmp_path / "a", "two")
    assert stamp(tmp_path / "a") != before[0]
    assert stamp(tmp_path) != before[1]
    assert stamp(tmp_path / "nowhere") == ()


def test_of_a_link_the_file_that_it_leads_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / "a.txt", tmp_path / "a.txt"
    target.write_text("old")
    link.symlink_to(target)
    write(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["a.txt"]
