"""Raw YAML over rendered documents."""

import copy
from typing import Any

import pytest

from asclepius_ray.errors import ConfigError
from asclepius_ray.launch.cluster.overlays import lay_over, merge
from asclepius_ray.launch.cluster.yaml_text import Json, dump_documents, load_documents

JOB = {
    "kind": "RayJob",
    "metadata": {"name": "pipeline"},
    "spec": {
        "backoffLimit": 2,
        "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
        "drop": ["ALL"],
    },
}


def test_mappings_are_merged_and_a_null_takes_a_key_away() -> None:
    merged = merge({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 9, "c": None}}, "it")
    assert merged == {"a": {"b": 9}, "d": 3}


def test_lists_of_named_things_are_merged_by_name_and_others_replaced() -> None:
    overlay = {"kind": "RayJob", "spec": {"env": [{"name": "B", "value": "9"}, {"name": "C"}], "drop": ["X"]}}
    (merged,) = lay_over([JOB], [overlay], "overlay.rayjob")
    assert merged["spec"]["env"] == [{"name": "A", "value": "1"}, {"name": "B", "value": "9"}, {"name": "C"}]
    assert merged["spec"]["drop"] == ["X"]
    assert merged["spec"]["backoffLimit"] == 2


def _laid(key: str, there: list[Json], over: list[Any]) -> list[Json]:
    (merged,) = lay_over(
        [{"kind": "RayJob", "spec": {key: there}}],
        [{"kind": "RayJob", "spec": {key: over}}],
        "overlay.rayjob",
    )
    found: list[Json] = merged["spec"][key]
    return found


def test_a_volume_is_mounted_at_a_second_place_beside_the_first() -> None:
    there = {"name": "data", "mountPath": "/data"}
    second = {"name": "data", "mountPath": "/cache", "subPath": "cache"}
    assert _laid("volumeMounts", [there], [second]) == [there, second]
    assert _laid("volumeMounts", [there], [{"mountPath": "/data", "readOnly": True}]) == [
        there | {"readOnly": True}
    ]


def test_a_toleration_of_another_effect_stands_beside_the_first() -> None:
    there = {"key": "spot", "operator": "Exists", "effect": "NoSchedule"}
    others = [{**there, "effect": "NoExecute"}, {"key": "spot", "operator": "Exists"}, {"operator": "Exists"}]
    assert _laid("tolerations", [there], others) == [there, *others]
    seconds = {"key": "spot", "effect": "NoSchedule", "tolerationSeconds": 60}
    assert _laid("tolerations", [there], [seconds]) == [there | seconds]


@pytest.mark.parametrize(
    ("key", "over", "complaint"),
    [
        ("env", [{"name": "B"}, {"name": "B"}], "env has two items with the name 'B'"),
        ("env", [{"value": "9"}], "env has an item without name"),
        ("env", [], "env is empty, which changes nothing"),
        ("volumeMounts", [{"name": "A", "readOnly": True}], "volumeMounts has an item without mountPath"),
        (
            "tolerations",
            [{"key": "a", "effect": "NoSchedule"}, {"key": "a", "effect": "NoSchedule"}],
            "tolerations has two items with the key and effect 'a', 'NoSchedule'",
        ),
    ],
)
def test_what_could_be_meant_in_two_ways_is_refused(key: str, over: list[Any], complaint: str) -> None:
    there = [{"name": "A", "mountPath": "/a", "key": "b"}]
    with pytest.raises(ConfigError) as caught:
        _laid(key, there, over)
    assert f"overlay.rayjob: {complaint}" in str(caught.value)


def test_what_is_laid_over_is_not_changed_itself() -> None:
    before = copy.deepcopy(JOB)
    lay_over([JOB], [{"kind": "RayJob", "spec": {"env": [{"name": "A", "value": "9"}]}}], "overlay.rayjob")
    assert before == JOB


def test_a_whole_document_is_added_and_half_a_one_refused() -> None:
    monitor = {"apiVersion": "monitoring.coreos.com/v1", "kind": "PodMonitor", "metadata": {"name": "ray"}}
    assert lay_over([JOB], [monitor], "overlay.rayjob") == [JOB, monitor]
    with pytest.raises(ConfigError, match=r"overlay\.rayjob: a document of kind 'RayJobb' has nothing to be"):
        lay_over([JOB], [{"kind": "RayJobb", "spec": {}}], "overlay.rayjob")


def test_a_document_of_another_name_is_not_laid_over() -> None:
    with pytest.raises(ConfigError, match="has nothing to be laid over"):
        lay_over([JOB], [{"kind": "RayJob", "metadata": {"name": "other"}}], "overlay.rayjob")


def test_yaml_is_written_without_anchors_and_read_without_shared_parts() -> None:
    shared = {"drop": ["ALL"]}
    text = dump_documents([{"a": shared, "b": shared, "c": "two\nlines\n"}])
    assert "&" not in text
    assert "c: |\n" in text
    (document,) = load_documents("a: &it {x: 1}\nb: *it\n", "a test")
    document["a"]["x"] = 2
    assert document["b"] == {"x": 1}


@pytest.mark.parametrize(("text", "complaint"), [("a: [", "is not valid YAML"), ("- a\n", "holds a list")])
def test_what_is_no_document_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        load_documents(text, "some.yaml")
