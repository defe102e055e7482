"""Tables become a dataset of Ray Data, and nobody has to work for it."""

import pyarrow as pa
import pytest
import ray
from ray.util.placement_group import placement_group, remove_placement_group

from asclepius_ray.tables.blocks import Blocks


@pytest.mark.timeout(60)
def test_a_dataset_is_made_of_blocks_where_no_cpu_is_free(ray_cluster: str) -> None:
    blocks = Blocks()
    for first in range(0, 12, 4):
        blocks.add(pa.table({"row": list(range(first, first + 4))}))
    every_cpu = placement_group([{"CPU": 1}] * int(ray.available_resources()["CPU"]))
    try:
        assert every_cpu.wait(30)
        dataset = blocks.dataset()
        assert len(blocks) == 3
        assert (dataset.count(), dataset.schema().names) == (12, ["row"])
    finally:
        remove_placement_group(every_cpu)
    tables = dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    assert sorted(row for table in tables for row in table["row"].to_pylist()) == list(range(12))
