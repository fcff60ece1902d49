"""A Hub that cannot be reached: known soon where nothing answers, and not before it has had a second chance."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest
from huggingface_hub import constants

from toolkit.models.hub import Root, _answers, single_file


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """The address of the Hub is a port that nobody listens at; (what has taken it, the address)."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        yield taken, address


def test_what_is_not_in_the_cache_is_told_soon(silent: tuple[socket.socket, str]) -> None:
    begin = time.monotonic()
    for ask in (
        lambda: Root("nobody/nothing").file("model_index.json"),
        lambda: single_file("nobody/nothing/a.safetensors"),
    ):
        with pytest.raises(ValueError, match="not in the cache, and the Hugging Face Hub cannot be reached; run `hf"):
            ask()
    assert Root("nobody/nothing").find(["a.json", "b.json", "c.json"]) is None
    assert time.monotonic() - begin < 10


def test_what_answers_at_the_second_try_can_be_reached(silent: tuple[socket.socket, str]) -> None:
    taken, address = silent

    def answer() -> None:
        time.sleep(0.3)
        taken.listen()
        connection, _ = taken.accept()
        with connection:
            connection.recv(4096)
            time.sleep(0.5)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    thread = Thread(target=answer, daemon=True)
    thread.start()
    assert _answers(address, 0)
    thread.join()
