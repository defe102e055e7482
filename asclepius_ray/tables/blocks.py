"""Tables → blocks in Ray's object store → a dataset of Ray Data."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa
import ray
from ray.data import DataContext, Dataset
from ray.data._internal.logical.interfaces import LogicalPlan
from ray.data._internal.logical.operators import FromArrow
from ray.data._internal.stats import DatasetStats
from ray.data.block import BlockMetadataWithSchema
from ray.data.dataset import MaterializedDataset

if TYPE_CHECKING:
    from ray import ObjectRef


@dataclass
class Blocks:
    """Tables in the object store, which spills to disk; what Ray Data asks of each is known already."""

    _references: "list[ObjectRef[pa.Table]]" = field(default_factory=list)
    _metadata: list[BlockMetadataWithSchema] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self._references)

    def add(self, table: pa.Table) -> None:
        """Puts the table there; the caller need not hold it any longer."""
        self._references.append(ray.put(table))
        self._metadata.append(BlockMetadataWithSchema.from_block(table))

    def extend(self, others: "Blocks") -> None:
        """Takes the blocks of others in after its own."""
        self._references += others._references
        self._metadata += others._metadata

    def dataset(self) -> Dataset:
        """All blocks, in their order.

        Ray's own from_arrow_refs asks for the size of each block by a task that takes a whole CPU: an
        autoscaler would bring every node that it may, those with GPUs too, for what is over in a second.
        """
        context = DataContext.get_current().copy()
        plan = LogicalPlan(FromArrow(self._references, self._metadata), context)
        stats = DatasetStats(metadata={"FromArrow": self._metadata}, parent=None)
        return MaterializedDataset(plan, context, stats)
