import os
from pathlib import Path

import pytest

from lorry_registry.errors import InvalidTaskError
from lorry_registry.settings import DEFAULT_IMAGE, Settings, find_home_above
from lorry_registry.signing import SigningSettings
from lorry_registry.stores import S3Options
from lorry_registry.text.scrubbing import find_secrets


def test_without_anything_all_is_below_the_present_folder(tmp_path: Path) -> None:
    settings = Settings.load({}, tmp_path)
    assert settings.home == tmp_path / ".lorry"
    assert settings.store == str(tmp_path / ".lorry" / "store")
    assert settings.tracking_uri == f"sqlite:///{tmp_path}/.lorry/mlflow.db"
    assert settings.image == DEFAULT_IMAGE
    folders = {settings.cache, settings.checkpoints, settings.runs, settings.locks}
    assert {folder.parent for folder in folders} == {settings.home}
    assert settings.digests == settings.cache / "digests"
    assert not settings.home.exists()


def test_the_environment_wins_over_the_file_and_the_file_over_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "lorry.toml").write_text(
        'home = "from-file"\nstore = "s3://file/store"\nimage = "file:1"\n', "utf-8"
    )
    settings = Settings.load({"LORRY_STORE": "from-environment", "LORRY_IMAGE": ""}, tmp_path)
    assert settings.home == tmp_path / "from-file"
    assert settings.store == str(tmp_path / "from-environment")
    assert settings.image == "file:1"
    assert settings.tracking_uri == f"sqlite:///{tmp_path}/from-file/mlflow.db"


def test_the_file_is_found_from_below_and_its_paths_count_from_its_folder(tmp_path: Path) -> None:
    (tmp_path / "lorry.toml").write_text(
        'bases = "bases"\nkubeflow_profile = "cluster/profile.yaml"\nkubeflow_experiment = "films"\n'
        'kubeflow_ca_file = "ca.pem"\ntrusted_keys = "keys/team.pub"\nsigning_policy = "warn"\n',
        "utf-8",
    )
    below = tmp_path / "tasks" / "films"
    below.mkdir(parents=True)
    settings = Settings.load({"LORRY_CHECKPOINTS": "kept"}, below)
    assert settings.home == tmp_path / ".lorry"
    assert settings.bases == str(tmp_path / "bases")
    assert settings.kubeflow.profile == tmp_path / "cluster" / "profile.yaml"
    assert settings.kubeflow.ca_file == tmp_path / "ca.pem"
    assert settings.kubeflow.experiment == "films"
    assert settings.signing.trusted_keys == (tmp_path / "keys" / "team.pub",)
    # What the environment names counts from where the command is given.
    assert settings.checkpoints == below / "kept"
    # The nearest file counts, and nothing of one above it.
    (below / "lorry.toml").touch()
    assert Settings.load({}, below) == Settings.load({}, below).model_copy(update={"bases": ""})
    assert Settings.load({}, below).home == below / ".lorry"


def test_a_file_above_that_belongs_to_another_user_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lorry.toml"
    path.write_text('store = "s3://another/store"\n', "utf-8")
    below = tmp_path / "below"
    below.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root can give a file to another user")
    os.chown(path, 65534, 65534)
    with pytest.raises(InvalidTaskError, match="belongs to another user"):
        Settings.load({}, below)
    # A checkout that belongs to another user as a whole is that user's, as in a container of CI.
    os.chown(below, 65534, 65534)
    assert Settings.load({}, below).store == "s3://another/store"


def test_a_registry_above_is_found_where_no_setting_says_which_counts(tmp_path: Path) -> None:
    (tmp_path / ".lorry" / "store").mkdir(parents=True)
    below = tmp_path / "tasks"
    below.mkdir()
    assert find_home_above({}, below) == tmp_path / ".lorry"
    assert find_home_above({}, tmp_path) is None
    assert find_home_above({"LORRY_STORE": "s3://bucket/lorry"}, below) is None
    (below / ".lorry").mkdir()
    assert find_home_above({}, below) is None
    (below / ".lorry").rmdir()
    (tmp_path / "lorry.toml").touch()
    assert find_home_above({}, below) is None


def test_addresses_stay_as_they_are_and_folders_become_absolute(tmp_path: Path) -> None:
    environment = {"LORRY_STORE": "s3://bucket/adapters", "MLFLOW_TRACKING_URI": "http://mlflow:5000"}
    settings = Settings.load(environment, tmp_path)
    assert settings.store == "s3://bucket/adapters"
    assert settings.tracking_uri == "http://mlflow:5000"
    assert Settings.load({"LORRY_STORE": "/srv/store"}, tmp_path).store == "/srv/store"


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    (tmp_path / "lorry.toml").write_text('home = "~/lorry"\nstore = "~/store"\n', "utf-8")
    settings = Settings.load({}, tmp_path)
    assert settings.home == Path("/home/someone/lorry")
    assert settings.store == "/home/someone/store"


def test_every_fault_of_the_file_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "lorry.toml").write_text('stor = "x"\nimage = 3\n[table]\na = 1\n', "utf-8")
    with pytest.raises(InvalidTaskError) as caught:
        Settings.load({}, tmp_path)
    assert [fault.where for fault in caught.value.faults] == ["stor", "image", "table"]
    assert "stor: unknown setting; did you mean 'store'?" in str(caught.value)
    assert str(tmp_path / "lorry.toml") in str(caught.value)


@pytest.mark.parametrize("content", [b"home = ", b"\xff\xfe", b"[[["])
def test_a_file_that_is_not_toml_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "lorry.toml").write_bytes(content)
    with pytest.raises(InvalidTaskError, match="not TOML"):
        Settings.load({}, tmp_path)


def test_s3_is_set_by_the_environment_and_the_file(tmp_path: Path) -> None:
    assert Settings.load({}, tmp_path).s3 == S3Options()
    assert Settings.load({}, tmp_path).list_s3_variables() == {}
    (tmp_path / "lorry.toml").write_text('s3_encryption = "aws:kms"\ns3_kms_key = "key"\n', "utf-8")
    settings = Settings.load({"LORRY_S3_KMS_KEY": "another"}, tmp_path)
    assert settings.s3 == S3Options(encryption="aws:kms", kms_key="another")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert Settings.load(settings.list_s3_variables(), elsewhere).s3 == settings.s3


def test_a_value_that_is_not_a_choice_is_refused(tmp_path: Path) -> None:
    environment = {"LORRY_S3_ENCRYPTION": "rot13", "LORRY_S3_KMS_KEY": "key"}
    with pytest.raises(InvalidTaskError) as caught:
        Settings.load(environment, tmp_path)
    assert [fault.where for fault in caught.value.faults] == ["s3_encryption", "s3_kms_key"]
    assert "'rot13' is not a choice; write AES256 or aws:kms" in str(caught.value)
    assert "LORRY_S3_ENCRYPTION" in caught.value.where
    (tmp_path / "lorry.toml").write_text('s3_encryption = "none"\n', "utf-8")
    with pytest.raises(InvalidTaskError, match="write AES256 or aws:kms") as caught:
        Settings.load({}, tmp_path)
    assert caught.value.where == str(tmp_path / "lorry.toml")


def test_checkpoints_are_in_a_folder_or_in_a_store(tmp_path: Path) -> None:
    def load(given: str) -> Settings:
        return Settings.load({"LORRY_CHECKPOINTS": given}, tmp_path)

    for given, folder in (("", tmp_path / ".lorry" / "checkpoints"), ("kept", tmp_path / "kept")):
        settings = load(given)
        assert settings.checkpoints == folder
        assert settings.checkpoint_address == str(folder)
        assert not settings.has_remote_checkpoints
    assert load("./store").checkpoints == tmp_path / "store"
    for given in ("store", "s3://scratch/lorry"):
        settings = load(given)
        assert settings.checkpoint_address == given
        assert settings.has_remote_checkpoints
        assert settings.checkpoints == tmp_path / ".lorry" / "checkpoints"
    (tmp_path / "lorry.toml").write_text('checkpoints = "store"\n', "utf-8")
    assert load("").checkpoint_address == "store"


def test_the_cache_has_a_size(tmp_path: Path) -> None:
    assert Settings.load({}, tmp_path).cache_bytes == 10 * 2**30
    assert Settings.load({}, tmp_path).list_step_variables() == {}
    settings = Settings.load({"LORRY_CACHE_SIZE": "500Mi"}, tmp_path)
    assert settings.cache_bytes == 500 * 2**20
    assert Settings.load(settings.list_step_variables(), tmp_path).cache_bytes == settings.cache_bytes


def test_every_fault_of_a_value_is_told_at_once(tmp_path: Path) -> None:
    environment = {"LORRY_CHECKPOINTS": "gs://bucket", "LORRY_CACHE_SIZE": "much"}
    with pytest.raises(InvalidTaskError) as caught:
        Settings.load(environment, tmp_path)
    assert [fault.where for fault in caught.value.faults] == ["checkpoints", "cache_size"]
    assert "write a folder, s3://bucket/prefix, or 'store' for a place in the store itself" in str(
        caught.value
    )
    assert "'much' is not a size; write, for example, 20Gi" in str(caught.value)
    with pytest.raises(InvalidTaskError, match="the address holds credentials") as caught:
        Settings.load({"LORRY_CHECKPOINTS": "s3://me:hush@bucket/x"}, tmp_path)
    assert "hush" not in str(caught.value)


def test_signing_is_set_by_the_environment_and_the_file_and_passed_on_without_its_password(
    tmp_path: Path,
) -> None:
    assert Settings.load({}, tmp_path).signing == SigningSettings()
    assert Settings.load({}, tmp_path).list_signing_variables() == {}
    (tmp_path / "lorry.toml").write_text(
        'signing_policy = "require"\ntrusted_keys = "keys/a.pub:/srv/b.pub"\nsigning_key = "keys/a"\n'
        'trusted_identities = "ci@example.org|https://accounts.example.org"\nsigstore_trust = "trust.json"\n',
        "utf-8",
    )
    environment = {"LORRY_SIGNING_POLICY": "warn", "LORRY_SIGNING_KEY_PASSWORD": "correct horse"}
    settings = Settings.load(environment, tmp_path)
    assert settings.signing.policy == "warn"
    assert settings.signing.trusted_keys == (tmp_path / "keys" / "a.pub", Path("/srv/b.pub"))
    assert settings.signing.key == str(tmp_path / "keys" / "a")
    assert settings.signing.password.get_secret_value() == "correct horse"
    assert "correct horse" not in repr(settings) + settings.model_dump_json()
    assert find_secrets(environment) == {"correct horse"}
    passed = settings.list_signing_variables()
    assert "correct horse" not in str(passed)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    again = Settings.load({**passed, "LORRY_SIGNING_KEY_PASSWORD": "correct horse"}, elsewhere)
    assert again.signing == settings.signing
    assert Settings.load({"LORRY_SIGNING_KEY": "sigstore"}, tmp_path).signing.key == "sigstore"


def test_a_policy_that_cannot_be_meant_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidTaskError) as caught:
        Settings.load({"LORRY_SIGNING_POLICY": "required", "LORRY_TRUSTED_IDENTITIES": "me"}, tmp_path)
    assert [fault.where for fault in caught.value.faults] == ["signing_policy", "trusted_identities"]
    with pytest.raises(InvalidTaskError, match="needs a trusted key or identity"):
        Settings.load({"LORRY_SIGNING_POLICY": "require"}, tmp_path)
    # A password has no place in a file.
    (tmp_path / "lorry.toml").write_text('signing_key_password = "x"\n', "utf-8")
    with pytest.raises(InvalidTaskError, match="unknown setting"):
        Settings.load({}, tmp_path)


@pytest.mark.parametrize(
    ("given", "anchored"),
    [
        ("sqlite:///m.db", "sqlite:///{folder}/m.db"),
        ("sqlite:///a/m.db?timeout=5", "sqlite:///{folder}/a/m.db?timeout=5"),
        ("sqlite:////var/m.db", "sqlite:////var/m.db"),
        ("sqlite:///:memory:", "sqlite:///:memory:"),
        ("http://mlflow:5000", "http://mlflow:5000"),
    ],
)
def test_a_database_is_the_same_from_every_folder(tmp_path: Path, given: str, anchored: str) -> None:
    settings = Settings.load({"MLFLOW_TRACKING_URI": given}, tmp_path)
    assert settings.tracking_uri == anchored.format(folder=tmp_path)
