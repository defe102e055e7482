"""A machine's Ray nodes are found by their processes."""

from ray_stand_ins import raylet

from asclepius_ray.launch.drain_watch.local_nodes import RayNode, find_ray_nodes, parse_raylet

COMMAND = [
    "/x/raylet",
    "--raylet_socket_name=/tmp/s",
    "--node_id=ab12",
    "--gcs-address=10.0.0.1:6379",
    "--head",
]


def test_node_and_cluster_are_read_from_a_raylet_s_command_line() -> None:
    assert parse_raylet(COMMAND, 7) == RayNode("ab12", "10.0.0.1:6379", 7)


def test_a_command_line_that_lacks_one_of_them_is_no_node() -> None:
    for missing in COMMAND[2:4]:
        assert parse_raylet([part for part in COMMAND if part != missing], 7) is None


def test_a_raylet_is_found_while_it_runs_and_not_after_its_end() -> None:
    with raylet("127.0.0.1:1") as running:
        (found,) = find_ray_nodes(running.node_id)
        assert (found.node_id, found.gcs_address) == (running.node_id, "127.0.0.1:1")
        assert found in find_ray_nodes()
        running.end()
        # Nobody has waited for it yet: it is a zombie, as in a container without an init process.
        assert find_ray_nodes(running.node_id) == []


def test_another_node_s_id_finds_nothing() -> None:
    with raylet("127.0.0.1:1"):
        assert find_ray_nodes("00" * 28) == []


def test_another_process_with_the_same_arguments_is_no_node() -> None:
    with raylet("127.0.0.1:1", "agent") as running:
        assert find_ray_nodes(running.node_id) == []
