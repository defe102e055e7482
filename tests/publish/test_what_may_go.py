"""What is refused before anything leaves the run, and what a card has to say."""

from pathlib import Path
from typing import Any

import pytest
from finished_run import MODEL_CARD, TEACHER, run_publish, train_elsewhere, write_run

from asclepius_ray.artifacts import Folder, read_manifest, write_manifest
from asclepius_ray.errors import ConfigError, PublishError
from asclepius_ray.progress import Progress
from asclepius_ray.publish.card import check_card
from asclepius_ray.publish.destination import Repository, parse_destination
from asclepius_ray.publish.publishing import Order, publish
from asclepius_ray.training.base_model_origin import ORIGINS
from asclepius_ray.training.card import CardFacts, render_card
from asclepius_ray.training.config import TrainingConfig


def publish_to(root: Path, target: Path, **order: Any) -> list[str]:
    said: list[str] = []
    publish(Folder(str(root)), Order(str(target), **order), "", Progress(), said.append)
    return said


def origin_of(root: Path) -> dict[str, Any]:
    """What the run's own dataset tells of itself."""
    details = read_manifest(Folder(str(root / "dataset"))).details
    return {name: details[name] for name in ("source", "teacher")}


def renew_manifest(folder: Path) -> None:
    before = read_manifest(Folder(str(folder)))
    write_manifest(Folder(str(folder)), before.artifact, before.counts, before.made_from, before.details)


def test_what_real_notes_went_into_stays_unless_it_is_allowed_by_name(tmp_path: Path) -> None:
    write_run(tmp_path / "root", kind="notes")
    with pytest.raises(PublishError, match="real notes"):
        publish_to(tmp_path / "root", tmp_path / "given")
    assert not (tmp_path / "given").exists()
    publish_to(tmp_path / "root", tmp_path / "given", allow_real_notes=True)
    assert (tmp_path / "given" / "model").exists()


def test_a_run_file_that_was_changed_afterwards_does_not_make_notes_public(tmp_path: Path) -> None:
    write_run(tmp_path / "root", kind="notes")
    text = (tmp_path / "root" / "run.json").read_text()
    (tmp_path / "root" / "run.json").write_text(text.replace('"kind": "notes"', '"kind": "case_reports"', 1))
    with pytest.raises(PublishError, match="real notes"):
        publish_to(tmp_path / "root", tmp_path / "given")


def test_a_model_of_rows_of_unknown_origin_stays_unless_it_is_allowed_by_name(
    root: Path, tmp_path: Path
) -> None:
    train_elsewhere(root, {})
    with pytest.raises(PublishError, match=r"data set from elsewhere.*--allow-unknown-origin"):
        publish_to(root, tmp_path / "given")
    assert not (tmp_path / "given").exists()
    publish_to(root, tmp_path / "given", kinds=("dataset",))
    publish_to(root, tmp_path / "given", allow_unknown_origin=True)
    assert (tmp_path / "given" / "model").exists()


def test_a_model_of_rows_whose_origin_is_known_goes_with_their_teachers_name(
    root: Path, tmp_path: Path
) -> None:
    train_elsewhere(root, origin_of(root))
    publish_to(root, tmp_path / "given")
    (card,) = (tmp_path / "given" / "model").glob("*/README.md")
    assert TEACHER in card.read_text()


def test_real_notes_stay_where_they_come_by_a_dataset_from_elsewhere(root: Path, tmp_path: Path) -> None:
    origin = origin_of(root)
    train_elsewhere(root, {**origin, "source": {**origin["source"], "kind": "notes"}})
    with pytest.raises(PublishError, match="real notes"):
        publish_to(root, tmp_path / "given", allow_unknown_origin=True)


@pytest.mark.parametrize("artifact", ["base_model", "model"])
def test_real_notes_stay_where_they_come_by_the_base_model(root: Path, tmp_path: Path, artifact: str) -> None:
    origin = origin_of(root)
    origins = [origin, {**origin, "source": {**origin["source"], "kind": "notes"}}]
    start_from(root, artifact, origins)
    with pytest.raises(PublishError, match=r"real notes.*base model.*--allow-real-notes"):
        publish_to(root, tmp_path / "given", allow_unknown_origin=True)
    assert not (tmp_path / "given").exists()
    publish_to(root, tmp_path / "given", kinds=("dataset",))
    publish_to(root, tmp_path / "given", allow_real_notes=True)
    assert (tmp_path / "given" / "model").exists()


def test_a_model_whose_base_has_learnt_texts_that_nobody_tells_stays_unless_allowed_by_name(
    root: Path, tmp_path: Path
) -> None:
    start_from(root, "model", [origin_of(root), {}])
    with pytest.raises(PublishError, match=r"base model.*--allow-unknown-origin"):
        publish_to(root, tmp_path / "given")
    publish_to(root, tmp_path / "given", allow_unknown_origin=True)


def start_from(root: Path, artifact: str, origins: list[dict[str, Any]]) -> None:
    """Has the manifest tell what its model had learnt."""
    folder = Folder(str(root / artifact))
    folder.write_bytes("config.json", b"{}")
    write_manifest(folder, artifact, {"parameters": 1}, {"seed": 7}, {ORIGINS: origins})


@pytest.mark.parametrize(
    ("file", "words"),
    [("dataset/train-00000.parquet", "another sha256"), ("model/config.json", "another sha256")],
)
def test_a_file_that_is_not_the_manifests_keeps_everything_back(
    root: Path, tmp_path: Path, file: str, words: str
) -> None:
    content = bytearray((root / file).read_bytes())
    content[len(content) // 2] ^= 1
    (root / file).write_bytes(content)
    with pytest.raises(PublishError, match=words) as caught:
        publish_to(root, tmp_path / "given")
    assert file in str(caught.value)
    assert not (tmp_path / "given").exists()


def test_a_file_that_is_gone_is_named(root: Path, tmp_path: Path) -> None:
    (root / "dataset" / "validation-00000.parquet").unlink()
    with pytest.raises(PublishError, match=r"validation-00000.parquet is not there"):
        publish_to(root, tmp_path / "given")


def test_a_file_that_no_dataset_has_is_not_given_away(root: Path, tmp_path: Path) -> None:
    (root / "dataset" / "examples.json").write_text("[]")
    renew_manifest(root / "dataset")
    with pytest.raises(PublishError, match=r"holds examples.json"):
        publish_to(root, tmp_path / "given")


def test_a_model_without_a_card_is_refused_by_the_cards_name(tmp_path: Path) -> None:
    write_run(tmp_path / "root", model_card="")
    with pytest.raises(PublishError, match=r"no card \(README.md\)"):
        publish_to(tmp_path / "root", tmp_path / "given")


def test_an_unfinished_stage_is_named_with_its_job(root: Path, tmp_path: Path) -> None:
    (root / "model" / "manifest.json").unlink()
    with pytest.raises(PublishError, match="run the job train"):
        publish_to(root, tmp_path / "given")


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"run.json"):
        publish_to(tmp_path, tmp_path / "given")


def test_the_synthesis_own_card_says_all_that_a_card_has_to(root: Path) -> None:
    check_card((root / "dataset" / "README.md").read_text(), "the card", TEACHER)


@pytest.mark.parametrize("base_model", ["tiny", "huggyllama/llama-7b"])
def test_the_trainings_own_card_says_all_that_a_card_has_to(root: Path, base_model: str) -> None:
    training = TrainingConfig(base_model=base_model)
    made_of = read_manifest(Folder(str(root / "dataset")))
    facts = CardFacts(training, 2048, 1000, "f00d", made_of, {"torch": "2.13.0"})
    check_card(render_card(facts, [], []), "the card", TEACHER)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("Source: `PMC-Patients.csv` (case reports).", "PMC-Patients.", "the source"),
        ("license: cc-by-nc-sa-4.0", "tags: [medical]", "the licence"),
        ("## Licence and limits of use", "## Limits of use", "the licence"),
        ("is under CC BY-NC-SA 4.0", "has a licence", "the licence of PMC-Patients"),
        (f"the teacher `{TEACHER}`", "a teacher", "the teacher"),
        ("## Licence and limits of use", "## Licence", "the limits of use"),
        (
            "PMC-Patients is under CC BY-NC-SA 4.0, and so is this model. For research only.",
            "",
            "the licence",
        ),
    ],
    ids=["source", "head", "licence section", "PMC-Patients", "teacher", "limits", "empty section"],
)
def test_a_card_that_leaves_something_out_is_refused_by_what_is_missing(
    old: str, new: str, named: str
) -> None:
    check_card(MODEL_CARD, "the card", TEACHER)
    assert old in MODEL_CARD
    with pytest.raises(PublishError) as caught:
        check_card(MODEL_CARD.replace(old, new), "the card", TEACHER)
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("to", "expected"),
    [
        ("org/clinic", Repository("org/clinic")),
        ("./out/clinic", Folder("./out/clinic")),
        ("/out/clinic", Folder("/out/clinic")),
        ("s3://out/clinic", Folder("s3://out/clinic")),
    ],
)
def test_a_destination_is_a_repository_a_folder_or_a_bucket(to: str, expected: Repository | Folder) -> None:
    assert parse_destination(to) == expected


@pytest.mark.parametrize("to", ["clinic", "a/b/c", "org/", "", "org/cli nic"])
def test_a_destination_that_is_neither_says_how_each_is_written(to: str) -> None:
    with pytest.raises(ConfigError, match=r"\./FOLDER"):
        parse_destination(to)


def test_the_command_tells_in_one_sentence_what_it_refuses(root: Path, tmp_path: Path) -> None:
    code, said = run_publish([root, "--to", "clinic"], {}, tmp_path)
    assert code == 2
    assert said.startswith("error: --to 'clinic'")
