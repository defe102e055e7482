"""`asclepius publish` to a hub: the real command and client against a server of its protocol."""

import os
import signal
import threading
from pathlib import Path

import pytest
from finished_run import SECRET_NOTE, SHARDS, run_publish, start_publish, write_run
from hub_server import READ_KEY, Hub, Repository

from asclepius_ray.artifacts import MANIFEST_NAME, Folder, read_manifest

DATASET, MODEL = "datasets/org/clinic", "models/org/clinic"


def files_of(root: Path, kind: str) -> dict[str, bytes]:
    """What the artefact holds, by its manifest."""
    folder = Folder(str(root / kind))
    return {name: folder.read_bytes(name) for name in [*read_manifest(folder).files, MANIFEST_NAME]}


def published(repository: Repository) -> dict[str, bytes]:
    return {name: content for name, content in repository.files.items() if name != ".gitattributes"}


def test_dataset_and_model_arrive_whole_in_private_repositories_by_one_commit_each(
    root: Path, hub: Hub, tmp_path: Path
) -> None:
    code, said = run_publish([root, "--to", "org/clinic"], hub.environment(), tmp_path)
    assert code == 0, said
    assert set(hub.repositories) == {DATASET, MODEL}
    for name, kind in ((DATASET, "dataset"), (MODEL, "model")):
        repository = hub.repositories[name]
        assert published(repository) == files_of(root, kind)
        assert repository.private
        assert len(repository.commits) == 2
    assert f"{hub.url}/datasets/org/clinic" in said
    assert f"{hub.url}/org/clinic" in said


def test_nothing_but_the_two_artefacts_leaves_the_run(root: Path, hub: Hub, tmp_path: Path) -> None:
    (root / "dataset" / "examples.json").write_text(SECRET_NOTE)
    code, said = run_publish([root, "--to", "org/clinic"], hub.environment(), tmp_path)
    assert code == 0, said
    sent = [content for repository in hub.repositories.values() for content in repository.files.values()]
    sent += hub.objects.values()
    assert len(sent) > 10
    assert not [content for content in sent if SECRET_NOTE.encode() in content]


def test_one_of_the_two_alone_can_be_published(root: Path, hub: Hub, tmp_path: Path) -> None:
    code, said = run_publish([root, "--to", "org/clinic", "--dataset"], hub.environment(), tmp_path)
    assert code == 0, said
    assert set(hub.repositories) == {DATASET}


def test_objects_that_the_hub_wants_in_parts_arrive_whole(root: Path, hub: Hub, tmp_path: Path) -> None:
    hub.part_bytes = 700_000
    code, said = run_publish([root, "--to", "org/clinic", "--model"], hub.environment(), tmp_path)
    assert code == 0, said
    assert max(len(parts) for parts in hub.parts.values()) == 3
    assert published(hub.repositories[MODEL]) == files_of(root, "model")


@pytest.mark.parametrize("upload", [1, SHARDS], ids=["first", "last"])
def test_killed_in_an_upload_nothing_is_published_and_the_same_command_goes_on(
    root: Path, hub: Hub, tmp_path: Path, upload: int
) -> None:
    arguments = [str(root), "--to", "org/clinic", "--model", "--public"]
    killed = threading.Event()

    def kill(number: int) -> None:
        if number == upload and not killed.is_set():
            os.kill(process.pid, signal.SIGKILL)
            killed.set()

    hub.during_upload = kill
    process = start_publish(arguments, hub.environment(), tmp_path)
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    assert published(hub.repositories[MODEL]) == {}
    assert hub.repositories[MODEL].private
    if upload == SHARDS:
        assert hub.received, "what came before the kill is there"
    code, said = run_publish(arguments, hub.environment(), tmp_path)
    assert code == 0, said
    assert published(hub.repositories[MODEL]) == files_of(root, "model")
    assert len(hub.repositories[MODEL].commits) == 2
    assert sorted(hub.received) == sorted(set(hub.received)), "an object was sent a second time"


def test_where_one_commit_is_refused_the_same_command_makes_up_for_it(
    root: Path, hub: Hub, tmp_path: Path
) -> None:
    hub.refuse_commit_of = MODEL
    code, said = run_publish([root, "--to", "org/clinic"], hub.environment(), tmp_path)
    assert code == 1, said
    assert "this commit is refused" in said
    assert "the dataset is published already, the model is not" in said
    assert "the same command again, which goes on from there" in said
    assert published(hub.repositories[DATASET]) == files_of(root, "dataset")
    assert published(hub.repositories[MODEL]) == {}
    num_received = len(hub.received)
    hub.refuse_commit_of = ""
    code, said = run_publish([root, "--to", "org/clinic"], hub.environment(), tmp_path)
    assert code == 0, said
    assert published(hub.repositories[MODEL]) == files_of(root, "model")
    assert len(hub.received) == num_received
    assert len(hub.repositories[DATASET].commits) == 2


def test_a_public_repository_is_opened_only_once_it_is_whole(root: Path, hub: Hub, tmp_path: Path) -> None:
    code, said = run_publish([root, "--to", "org/clinic", "--public"], hub.environment(), tmp_path)
    assert code == 0, said
    for repository in hub.repositories.values():
        assert not repository.private
        assert not repository.was_public_while_empty


@pytest.mark.parametrize("public", [[], ["--public"]], ids=["private", "public"])
def test_where_nothing_is_committed_yet_nothing_is_said_to_be(
    root: Path, hub: Hub, tmp_path: Path, public: list[str]
) -> None:
    hub.refuse_commit_of = DATASET
    code, said = run_publish([root, "--to", "org/clinic", *public], hub.environment(), tmp_path)
    assert code == 1, said
    assert "nothing is published yet" in said


def test_a_public_publication_of_which_half_is_there_goes_on(root: Path, hub: Hub, tmp_path: Path) -> None:
    arguments = [root, "--to", "org/clinic", "--public"]
    hub.refuse_commit_of = MODEL
    assert run_publish(arguments, hub.environment(), tmp_path)[0] == 1
    assert all(repository.private for repository in hub.repositories.values())
    hub.refuse_commit_of = ""
    code, said = run_publish(arguments, hub.environment(), tmp_path)
    assert code == 0, said
    assert not any(repository.private for repository in hub.repositories.values())


def test_what_was_published_privately_before_is_never_opened(root: Path, hub: Hub, tmp_path: Path) -> None:
    arguments = [root, "--to", "org/clinic", "--dataset"]
    assert run_publish(arguments, hub.environment(), tmp_path)[0] == 0
    repository, num_received = hub.repositories[DATASET], len(hub.received)
    write_run(root, seed=8)
    before = dict(repository.files)
    code, said = run_publish([*arguments, "--public"], hub.environment(), tmp_path)
    assert code == 1, said
    assert "open it by hand" in said
    assert "another repository" in said
    assert repository.private
    assert repository.files == before
    assert len(hub.received) == num_received


@pytest.mark.parametrize("where", ["history", "branch", "first commit"])
def test_a_private_repository_with_anything_of_others_is_never_opened(
    root: Path, hub: Hub, tmp_path: Path, where: str
) -> None:
    arguments = [root, "--to", "org/clinic", "--model"]
    if where == "first commit":
        hub.repositories[MODEL] = Repository(private=True)
        hub.repositories[MODEL].files["README.md"] = b"of others"
    else:
        assert run_publish(arguments, hub.environment(), tmp_path)[0] == 0
    repository = hub.repositories[MODEL]
    if where == "history":
        repository.commits.insert(1, "1" * 40)
    elif where == "branch":
        repository.branches.append("drafts")
    code, said = run_publish([*arguments, "--public"], hub.environment(), tmp_path)
    assert code == 1, said
    assert "open it by hand" in said
    assert repository.private


def test_a_repository_that_is_open_already_takes_nothing_without_the_word_public(
    root: Path, hub: Hub, tmp_path: Path
) -> None:
    hub.repositories[MODEL] = Repository(private=False)
    code, said = run_publish([root, "--to", "org/clinic", "--model"], hub.environment(), tmp_path)
    assert code == 1, said
    assert "--public" in said
    assert not hub.objects


def test_a_new_version_takes_the_place_of_the_old_one_and_leaves_what_others_put_there(
    root: Path, hub: Hub, tmp_path: Path
) -> None:
    arguments = [root, "--to", "org/clinic", "--model"]
    assert run_publish(arguments, hub.environment(), tmp_path)[0] == 0
    repository = hub.repositories[MODEL]
    repository.files["figure.png"] = b"added by hand"
    last = f"model-{SHARDS:05d}-of-{SHARDS:05d}.safetensors"
    (root / "model" / "tokenizer.json").write_text("{}")
    (root / "model" / last).unlink()
    (root / "model" / MANIFEST_NAME).unlink()
    write_run_manifest(root / "model")
    code, said = run_publish(arguments, hub.environment(), tmp_path)
    assert code == 0, said
    assert last not in repository.files
    assert published(repository) == {**files_of(root, "model"), "figure.png": b"added by hand"}


def write_run_manifest(folder: Path) -> None:
    from asclepius_ray.artifacts import write_manifest

    write_manifest(Folder(str(folder)), "model", {"parameters": 1}, {"seed": 8})


def test_a_repository_with_files_of_others_is_left_alone(root: Path, hub: Hub, tmp_path: Path) -> None:
    hub.repositories[MODEL] = Repository(private=True)
    hub.repositories[MODEL].files["model.safetensors"] = b"of somebody else"
    code, said = run_publish([root, "--to", "org/clinic", "--model"], hub.environment(), tmp_path)
    assert code == 1, said
    assert "no run published there" in said
    assert published(hub.repositories[MODEL]) == {"model.safetensors": b"of somebody else"}


def test_what_somebody_else_commits_meanwhile_is_not_written_over(
    root: Path, hub: Hub, tmp_path: Path
) -> None:
    def commit(number: int) -> None:
        if number == 1:
            hub.repositories[MODEL].commits.append("1" * 40)

    hub.during_upload = commit
    code, said = run_publish([root, "--to", "org/clinic", "--model"], hub.environment(), tmp_path)
    assert code == 1, said
    assert "changed at the same time" in said
    assert published(hub.repositories[MODEL]) == {}


@pytest.mark.parametrize(
    ("key", "code", "words"),
    [("", 2, "HF_TOKEN is not set"), ("hf_wrong", 1, "valid key"), (READ_KEY, 2, "may only read")],
    ids=["none", "wrong", "read only"],
)
def test_a_key_that_cannot_publish_is_refused_before_anything_is_sent(
    root: Path, hub: Hub, tmp_path: Path, key: str, code: int, words: str
) -> None:
    found, said = run_publish([root, "--to", "org/clinic"], hub.environment(key), tmp_path)
    assert (found, words in said) == (code, True), said
    assert not key or key not in said
    assert not hub.repositories


def test_an_owner_that_is_not_ours_is_a_clear_refusal(root: Path, hub: Hub, tmp_path: Path) -> None:
    code, said = run_publish([root, "--to", "others/clinic"], hub.environment(), tmp_path)
    assert code == 1, said
    assert "HTTP 403" in said
    assert "Traceback" not in said


def test_a_hub_without_xet_is_named_with_the_way_around(root: Path, hub: Hub, tmp_path: Path) -> None:
    environment = {name: value for name, value in hub.environment().items() if name != "HF_HUB_DISABLE_XET"}
    code, said = run_publish([root, "--to", "org/clinic", "--model"], environment, tmp_path)
    assert code == 1, said
    assert "HF_HUB_DISABLE_XET=1" in said
    assert "Traceback" not in said
    assert published(hub.repositories[MODEL]) == {}


def test_a_hub_that_is_not_there_is_a_clear_error(root: Path, tmp_path: Path) -> None:
    environment = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_TOKEN": "hf_any", "no_proxy": "127.0.0.1"}
    code, said = run_publish([root, "--to", "org/clinic"], environment, tmp_path)
    assert code == 1, said
    assert "cannot be reached" in said


def test_a_card_that_the_hub_does_not_take_is_told_before_anything_is_sent(tmp_path: Path, hub: Hub) -> None:
    from finished_run import MODEL_CARD

    root = tmp_path / "other"
    write_run(root, model_card=MODEL_CARD.replace("license: cc-by-nc-sa-4.0", "license: invented-1.0"))
    code, said = run_publish([root, "--to", "org/clinic"], hub.environment(), tmp_path)
    assert code == 1, said
    assert "invented-1.0" in said
    assert not hub.objects


def test_a_dry_run_lists_all_that_would_go_and_asks_the_hub_nothing(root: Path, tmp_path: Path) -> None:
    environment = {"HF_ENDPOINT": "http://127.0.0.1:9"}
    code, said = run_publish([root, "--to", "org/clinic", "--dry-run"], environment, tmp_path)
    assert code == 0, said
    for kind in ("dataset", "model"):
        for name in files_of(root, kind):
            assert f"  {name} (" in said
    assert "private repository" in said
    assert "nothing was sent" in said
