"""Whether all nodes of a cluster see a local root: two nodes, on one machine here."""

from pathlib import Path

import pytest

from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import ConfigError
from asclepius_ray.ray_session import check_root_is_shared


@pytest.mark.usefixtures("ray_cluster")
def test_a_root_that_all_nodes_see_passes_and_one_that_some_do_not_see_is_refused(tmp_path: Path) -> None:
    root = Folder(str(tmp_path))
    root.write_bytes("lease", b"")
    check_root_is_shared(root, "lease")
    check_root_is_shared(Folder("s3://bucket/run"), "lease")
    with pytest.raises(ConfigError, match="2 of the cluster's 2 nodes do not"):
        check_root_is_shared(root, "absent")
