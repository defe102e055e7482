"""What the watch does and says as notices, Ray and the metadata service come and go."""

import pytest
from watch_scene import NODE, OTHER, START_UNIX, Scene, TooLong

from asclepius_ray.errors import AsclepiusError, ConfigError
from asclepius_ray.launch.drain_watch.local_nodes import RayAway
from asclepius_ray.launch.drain_watch.metadata import MetadataAway, MetadataUnreachable
from asclepius_ray.launch.drain_watch.notices import INTERRUPTION, MAINTENANCE, PREEMPTION, STOP, Notice

SILENCE = MetadataUnreachable("nobody listens there")


def give_notice(scene: Scene, notice: Notice | None) -> None:
    scene.cloud.notice = notice


def end_nodes(scene: Scene) -> None:
    scene.machine.nodes.clear()


def test_a_notice_drains_the_node_until_the_notice_s_own_time_and_the_watch_ends_with_it() -> None:
    scene = Scene()
    scene.at(100, lambda: give_notice(scene, Notice(INTERRUPTION, START_UNIX + 220)))
    scene.at(130, lambda: end_nodes(scene))
    scene.watch().run(scene.cloud, gives_up=True)
    assert scene.machine.asked == [(100, NODE.node_id, 220, INTERRUPTION)]
    assert scene.time.seconds == 130
    assert scene.lines() == [
        "watching for notices of aws",
        "notice of a spot interruption: this machine goes at 2025-11-29T12:03:40Z",
        "Ray drains the node abababababab, until 2025-11-29T12:03:40Z",
        "drained: no Ray node runs on this machine any more",
    ]


def test_a_node_that_stays_busy_is_left_at_the_deadline() -> None:
    scene = Scene()
    scene.cloud.notice = Notice(PREEMPTION)
    scene.watch().run(scene.cloud, gives_up=True)
    assert scene.time.seconds == 30
    assert scene.lines()[-1] == "the time has come; Ray nodes that still run here: 1"


def test_what_was_set_counts_where_a_notice_names_no_time() -> None:
    scene = Scene()
    scene.watch(grace_seconds=12).drain(Notice(STOP))
    assert (scene.machine.asked[0][2], scene.time.seconds) == (12, 12)


def test_all_nodes_of_the_machine_are_drained_and_waited_for() -> None:
    scene = Scene()
    scene.machine.nodes = [NODE, OTHER]
    scene.at(10, lambda: scene.machine.nodes.remove(NODE))
    scene.at(20, lambda: scene.machine.nodes.remove(OTHER))
    scene.watch().drain(Notice(INTERRUPTION))
    assert [asked[1] for asked in scene.machine.asked] == [NODE.node_id, OTHER.node_id]
    assert scene.time.seconds == 20


def test_ray_that_comes_up_after_the_notice_is_drained_then() -> None:
    scene = Scene()
    scene.machine.nodes = []
    scene.cloud.notice = Notice(INTERRUPTION)
    scene.at(40, lambda: scene.machine.nodes.append(NODE))
    scene.at(50, lambda: end_nodes(scene))
    scene.watch().run(scene.cloud, gives_up=True)
    assert [asked[0] for asked in scene.machine.asked] == [40]
    assert scene.time.seconds == 50
    assert scene.lines().count("no Ray node runs on this machine") == 1


def test_ray_that_never_comes_up_ends_the_watch_at_the_deadline() -> None:
    scene = Scene()
    scene.machine.nodes = []
    scene.watch().drain(Notice(INTERRUPTION))
    assert scene.time.seconds == 120


def test_a_node_that_ray_starts_again_on_a_doomed_machine_is_drained_too() -> None:
    scene = Scene()
    scene.machine.nodes = [NODE, OTHER]
    again = type(NODE)("ef" * 28, NODE.gcs_address, 19)
    scene.at(10, lambda: scene.machine.nodes.append(again))
    scene.watch().drain(Notice(INTERRUPTION))
    assert scene.machine.asked[-1][:2] == (10, again.node_id)


def test_a_head_that_is_away_for_a_while_is_asked_until_it_answers() -> None:
    scene = Scene()
    scene.machine.away = RayAway("its head cannot be reached")
    scene.at(25, lambda: setattr(scene.machine, "away", None))
    scene.at(60, lambda: end_nodes(scene))
    scene.watch().drain(Notice(INTERRUPTION))
    assert [asked[0] for asked in scene.machine.asked] == [25]
    troubles = [line for line in scene.lines() if "its head cannot be reached" in line]
    assert len(troubles) == 1
    assert scene.lines()[-2:] == [
        "Ray drains the node abababababab, until 2025-11-29T12:02:00Z",
        "drained: no Ray node runs on this machine any more",
    ]


def test_a_head_that_stays_away_is_an_error_at_the_deadline() -> None:
    scene = Scene()
    scene.machine.away = RayAway("its head cannot be reached")
    with pytest.raises(AsclepiusError, match="its head cannot be reached"):
        scene.watch().drain(Notice(INTERRUPTION))
    assert scene.time.seconds == 120


def test_a_head_that_does_not_know_the_node_yet_is_asked_again() -> None:
    scene = Scene()
    scene.machine.known = False
    scene.at(3, lambda: setattr(scene.machine, "known", True))
    scene.watch().drain(Notice(INTERRUPTION))
    assert [asked[0] for asked in scene.machine.asked] == [0, 1, 2, 3]
    assert len([line for line in scene.lines() if line.startswith("Ray drains")]) == 1


def test_each_node_is_told_of_once_however_often_the_head_is_asked() -> None:
    scene = Scene()
    scene.machine.nodes = [NODE, OTHER]
    scene.machine.known = False
    scene.watch().drain(Notice(INTERRUPTION))
    assert len(scene.machine.asked) > 100
    assert len([line for line in scene.lines() if line.startswith("Ray drains")]) == 2


def test_an_idle_node_that_goes_at_once_was_drained() -> None:
    scene = Scene()
    scene.machine.known = False
    scene.at(1, lambda: end_nodes(scene))
    scene.watch().drain(Notice(INTERRUPTION))
    assert scene.time.seconds == 1


def test_a_notice_withdrawn_before_ray_was_told_is_watched_past() -> None:
    scene = Scene()
    scene.machine.nodes = []
    scene.cloud.notice = Notice(INTERRUPTION)
    scene.at(20, lambda: give_notice(scene, None))
    scene.at(200, lambda: scene.machine.nodes.append(NODE))
    scene.at(400, lambda: give_notice(scene, Notice(INTERRUPTION)))
    scene.at(410, lambda: end_nodes(scene))
    scene.watch().run(scene.cloud, gives_up=True)
    assert [asked[0] for asked in scene.machine.asked] == [400]
    assert scene.lines()[2:4] == [
        "the notice is withdrawn before Ray was told",
        "watching for notices of aws",
    ]


def test_a_notice_withdrawn_after_ray_was_told_ends_no_drain() -> None:
    scene = Scene()
    scene.cloud.notice = Notice(INTERRUPTION)
    scene.at(20, lambda: give_notice(scene, None))
    scene.at(60, lambda: end_nodes(scene))
    scene.watch().run(scene.cloud, gives_up=True)
    assert scene.time.seconds == 60
    assert len([line for line in scene.lines() if "takes no drain back" in line]) == 1


def test_a_metadata_service_that_goes_away_withdraws_nothing() -> None:
    scene = Scene()
    scene.machine.nodes = []
    scene.cloud.notice = Notice(INTERRUPTION)
    scene.at(2, lambda: setattr(scene.cloud, "away", SILENCE))
    scene.at(90, lambda: scene.machine.nodes.append(NODE))
    scene.watch().run(scene.cloud, gives_up=True)
    assert [asked[0] for asked in scene.machine.asked] == [90]


def test_a_notice_that_leaves_less_time_is_passed_on() -> None:
    scene = Scene()
    scene.cloud.notice = Notice(MAINTENANCE)
    scene.at(10, lambda: give_notice(scene, Notice(PREEMPTION)))
    scene.watch().run(scene.cloud, gives_up=True)
    assert [asked[2:] for asked in scene.machine.asked] == [(60, MAINTENANCE), (40, PREEMPTION)]
    assert scene.time.seconds == 40


def test_a_notice_whose_time_is_past_still_drains() -> None:
    scene = Scene()
    scene.watch().drain(Notice(INTERRUPTION, START_UNIX - 5))
    assert len(scene.machine.asked) == 1
    assert scene.time.seconds == 0


def test_without_a_metadata_service_the_watch_says_so_once_and_goes_on() -> None:
    scene = Scene()
    scene.cloud.away = SILENCE
    with pytest.raises(TooLong):
        scene.watch().run(scene.cloud, gives_up=False)
    assert scene.lines() == [
        "no notice can be read from the metadata address: nobody listens there; watching on"
    ]
    assert scene.cloud.num_looks > 1000


def test_a_service_that_comes_late_is_watched() -> None:
    scene = Scene()
    scene.cloud.away = SILENCE
    scene.at(55, lambda: setattr(scene.cloud, "away", None))
    with pytest.raises(TooLong):
        scene.watch().run(scene.cloud, gives_up=True)
    assert scene.lines()[-1] == "watching for notices of aws"


def test_a_cloud_that_was_named_and_is_not_there_for_a_minute_is_an_error() -> None:
    scene = Scene()
    scene.cloud.away = SILENCE
    with pytest.raises(ConfigError, match=r"aws's metadata service .* nobody listens there, for 60 s"):
        scene.watch().run(scene.cloud, gives_up=True)
    assert scene.time.seconds == 60


@pytest.mark.parametrize(
    "trouble", [MetadataAway("it does not answer in time"), SILENCE], ids=["hangs", "refuses"]
)
def test_a_service_that_has_answered_may_stay_away_for_long(trouble: MetadataAway) -> None:
    scene = Scene()
    scene.at(10, lambda: setattr(scene.cloud, "away", trouble))
    scene.at(3000, lambda: setattr(scene.cloud, "away", None))
    scene.at(3010, lambda: give_notice(scene, Notice(INTERRUPTION)))
    scene.at(3020, lambda: end_nodes(scene))
    scene.watch().run(scene.cloud, gives_up=True)
    assert [asked[0] for asked in scene.machine.asked] == [3010]
    assert [line.split()[0] for line in scene.lines()] == [
        "watching",
        "no",
        "watching",
        "notice",
        "Ray",
        "drained:",
    ]


def test_a_service_that_hangs_from_the_start_is_watched_on() -> None:
    scene = Scene()
    scene.cloud.away = MetadataAway("it does not answer in time")
    scene.at(500, lambda: setattr(scene.cloud, "away", None))
    scene.at(510, lambda: give_notice(scene, Notice(INTERRUPTION)))
    scene.watch().run(scene.cloud, gives_up=True)
    assert [asked[0] for asked in scene.machine.asked] == [510]
    assert "it does not answer in time" in scene.lines()[0]


def test_a_service_that_has_hung_and_then_refuses_is_watched_on() -> None:
    scene = Scene()
    scene.cloud.away = MetadataAway("it does not answer in time")
    scene.at(70, lambda: setattr(scene.cloud, "away", SILENCE))
    with pytest.raises(TooLong):
        scene.watch().run(scene.cloud, gives_up=True)
    assert len(scene.said) == 2
