import os
from pathlib import Path

import pytest

from coordinator.settings import FederationSettings, read_federation, recordings
from mekt.errors import SettingsError
from tests.coordinator.conftest import settings_of
from tests.tables import WINDOWS_OF_ACC

FEDERATION = (
    """
federation = "ward-3"
state = "state"                       # relative paths start at this file's folder
rounds = 50
proxy = "proxy.npz"                   # public to the federation: windows of every modality
labelled = ["labelled.npz"]           # stays here: a few labelled recordings for the classifier
"""
    + WINDOWS_OF_ACC
    + """
[broker]
host = "127.0.0.1"
port = 1883
"""
)


def read(folder: Path, text: str) -> FederationSettings:
    path = folder / "federation.toml"
    path.write_text(text, encoding="utf-8")
    return read_federation(path)


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(SettingsError) as caught:
        read(folder, text)
    assert all(line.startswith(f"{folder / 'federation.toml'}: ") for line in str(caught.value).splitlines())
    return str(caught.value).replace(f"{folder / 'federation.toml'}: ", "")


def test_a_federation_parses_and_one_recording_needs_no_brackets(tmp_path: Path) -> None:
    settings = read(tmp_path, FEDERATION)
    assert (settings.federation, settings.rounds, settings.proxy) == ("ward-3", 50, ("proxy.npz",))
    assert settings.labelled == ("labelled.npz",) and settings.test == ()
    assert settings.window.samples(settings.modalities[0]) == 128


def test_the_readme_s_federation_parses(tmp_path: Path) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    start = readme.index("```toml\n") + len("```toml\n")
    assert read(tmp_path, readme[start : readme.index("```", start)]).federation == "ward-3"


def test_tables_of_method_and_round_are_read(tmp_path: Path) -> None:
    more = '[method]\nembedding = 8\ntransfer = "cosine"\n[round]\nquorum = 0.5\n[architectures]\nacc = "lstm"\n'
    settings = read(tmp_path, FEDERATION + more)
    assert (settings.method.embedding, settings.method.transfer, settings.round.quorum) == (8, "cosine", 0.5)
    assert settings.architectures == {"acc": "lstm"}


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("rounds = 50", 'rounds = "50"', "rounds: expected a whole number, got '50' (remove the quotes)"),
        ("rounds = 50", "rounds = 0", "rounds: expected at least 1"),
        ("rounds = 50", "rounds = 50\ndevices = 3", "devices: unknown key"),
        ("rounds = 50", "", "rounds: missing"),
        ("rounds = 50", "rounds = 50\nseed = -1", "seed: expected at least 0"),
        ("rounds = 50", "rounds = 50\nproxy_windows = 1", "proxy_windows: expected at least 2"),
        ("rounds = 50", 'rounds = 50\ncompute = "tpu"', "compute: expected one of"),
        ('"ward-3"', '"ward 3"', "federation: expected text like"),
        ('proxy = "proxy.npz"', "proxy = []", "proxy: expected at least 1"),
        ('proxy = "proxy.npz"', "proxy = 7", "proxy: expected a list"),
        ('proxy = "proxy.npz"', 'proxy = ["a\\u0000.npz"]', "proxy[0]: expected text like"),
        ('proxy = "proxy.npz"', 'proxy = ["a.npz", "./a.npz"]', "proxy[1]: ./a.npz is named before"),
        ("stride_s = 1.28", "stride_s = 0", "window.stride_s: expected more than 0"),
        ("2.56\nstride_s = 1.28", "1e6\nstride_s = 1e6", "window: of acc it holds more than"),
        ('unit = "g"', 'unit = "g"\ngain = 3', "modalities[0].gain: unknown key"),
        ("shape = [3]", "shape = [3, 0]", "modalities[0].shape[1]: expected at least 1"),
        ("port = 1883", "port = 1883\n[round]\nsecure = true", "round.min_devices: a secure sum is of 3 devices"),
        (
            "port = 1883",
            "port = 1883\n[method]\nbeta = 1\n[round]\nsecure = true\nmin_devices = 3",
            "method: beta and gamma send hidden layers",
        ),
        ("port = 1883", "port = 1883\n[method]\nalpha = -1", "method.alpha: expected at least 0"),
        ("port = 1883", "port = 1883\n[round]\nquorum = 1.5", "round.quorum: expected at most 1"),
        ("port = 1883", 'port = 1883\n[architectures]\ngyro = "conv"', "architectures: gyro is no modality"),
        ('labelled = ["labelled.npz"]', 'test = ["test.npz"]', "test: scores need a classifier"),
        (
            "[window]",
            "[[modalities]]\n" + FEDERATION.split("[[modalities]]\n")[1].split("[b")[0] + "[window]",
            "modalities: acc",
        ),
    ],
)
def test_a_mistake_is_named_by_file_and_key(tmp_path: Path, before: str, after: str, says: str) -> None:
    assert before in FEDERATION
    assert refusal(tmp_path, FEDERATION.replace(before, after)).startswith(says)


def test_all_mistakes_are_named_at_once(tmp_path: Path) -> None:
    text = FEDERATION.replace("rounds = 50", "rounds = 0").replace("port = 1883", "port = 0")
    assert [line.split(":")[0] for line in refusal(tmp_path, text).splitlines()] == ["rounds", "broker.port"]


def test_what_is_no_toml_is_named_by_line(tmp_path: Path) -> None:
    assert refusal(tmp_path, "federation = \n").startswith("line 1")


@pytest.mark.parametrize("name", ["./x.npz", "sub/../x.npz", "link.npz"])
@pytest.mark.parametrize("kind", ["proxy", "labelled"])
def test_a_recording_cannot_be_learned_from_and_tested_on(tmp_path: Path, kind: str, name: str) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "link.npz").symlink_to(tmp_path / "x.npz")
    other = "proxy.npz" if kind == "proxy" else "labelled.npz"
    text = FEDERATION.replace(other, str(tmp_path / "x.npz")).replace(
        "[window]", f'test = ["y.npz", "{name}"]\n[window]'
    )
    assert refusal(tmp_path, text).startswith(f"test[1]: {name} is also in {kind}")


def test_paths_of_certificates_start_at_the_file_s_folder(tmp_path: Path) -> None:
    tls = '[broker.tls]\nca = "ca.pem"\ncertificate = "/etc/mekt.pem"\nkey = "keys/mekt.key"\n'
    settings = read(tmp_path, FEDERATION.replace("port = 1883", 'port = 8883\npassword_file = "secret"') + tls)
    assert settings.broker.tls is not None
    assert settings.broker.tls.ca == str(tmp_path / "ca.pem")
    assert settings.broker.tls.certificate == "/etc/mekt.pem"
    assert settings.broker.tls.key == str(tmp_path / "keys" / "mekt.key")
    assert settings.broker.password_file == str(tmp_path / "secret")


def test_recordings_start_at_the_base_and_the_missing_are_all_named(tmp_path: Path) -> None:
    settings = settings_of(proxy=("a.npz", "b.npz", str(tmp_path / "c.npz")))
    (tmp_path / "b.npz").touch()
    with pytest.raises(SettingsError) as caught:
        recordings(settings, tmp_path, "proxy")
    assert [line.split(": ")[0] for line in str(caught.value).splitlines()] == ["proxy[0]", "proxy[2]"]
    assert recordings(settings_of(proxy=("b.npz",)), tmp_path, "proxy") == [tmp_path / "b.npz"]
    assert os.fspath(tmp_path) in str(caught.value)
