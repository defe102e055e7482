"""Tables become a dataset of Ray Data, and nobody has to work for it."""

import pyarrow as pa
import pytest
import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from asclepius_ray.tables.blocks import Blocks


def take_every_cpu() -> PlacementGroup:
    """Of what others of this cluster are just giving back, the figures tell late: it is asked for again."""
    for _ in range(20):
        group = placement_group([{"CPU": 1}] * int(ray.available_resources()["CPU"]))
        if group.wait(5):
            return group
        remove_placement_group(group)
    raise AssertionError("no moment with every CPU free")


@pytest.mark.timeout(150)
def test_a_dataset_is_made_of_blocks_where_no_cpu_is_free(ray_cluster: str) -> None:
    blocks = Blocks()
    for first in range(0, 12, 4):
        blocks.add(pa.table({"row": list(range(first, first + 4))}))
    every_cpu = take_every_cpu()
    try:
        dataset = blocks.dataset()
        assert len(blocks) == 3
        assert (dataset.count(), dataset.schema().names) == (12, ["row"])
    finally:
        remove_placement_group(every_cpu)
    tables = dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    assert sorted(row for table in tables for row in table["row"].to_pylist()) == list(range(12))
