import socket

import pytest

from mosaic_lab.core import hub_access as hub


@pytest.fixture
def reach(monkeypatch):
    """Puts another address in the Hub's place, and forgets about offline mode."""

    def use(url):
        monkeypatch.setattr(hub, "is_offline_mode", lambda: False)
        monkeypatch.setattr(hub, "PROBE_SECONDS", 0.2)
        monkeypatch.setattr(hub, "hf_hub_url", lambda *names: url)

    return use


def test_a_silent_hub_is_given_up_soon(reach):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        reach(f"http://127.0.0.1:{silent.getsockname()[1]}/never")
        assert hub.can_reach_hub() is False


def test_folders_need_no_hub(reach, tmp_path):
    (tmp_path / "file").touch()
    reach((tmp_path / "file").as_uri())
    assert hub.can_reach_hub()
    assert hub.is_only_local(str(tmp_path)) and not hub.is_only_local("some/model")


def test_offline_mode_is_obeyed(reach, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    reach((tmp_path / "file").as_uri())
    monkeypatch.setattr(hub, "is_offline_mode", lambda: True)
    assert not hub.can_reach_hub() and hub.is_only_local("some/model")
