"""The section `[storage]` of a profile: the one place that all nodes see."""

from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from asclepius_ray.config import Section


class BucketSection(Section):
    """`[storage.bucket]`."""

    uri: str = Field(pattern=r"^(s3|gs)://[^/?]+(/[^?]*)?$")
    """The folder of all runs, "s3://BUCKET/asclepius". On AWS and Google Cloud `asclepius submit` is told it,
    as the rendered file's second line says."""
    endpoint: str = ""
    """HOST:PORT of an S3-compatible store, such as MinIO's; "" = the cloud's own."""
    endpoint_scheme: Literal["https", "http"] = "https"
    kms_key: str = ""
    """The key of the bucket's default encryption, which you set at the bucket; AWS's and Google Cloud's nodes
    encrypt their disks with it too."""

    @model_validator(mode="after")
    def _scheme_is_of_an_endpoint(self) -> "BucketSection":
        if self.endpoint_scheme == "http" and not self.endpoint:
            raise ValueError('endpoint_scheme = "http" is for an endpoint of your own; set endpoint')
        if self.endpoint and not self.uri.startswith("s3://"):
            raise ValueError("endpoint is for s3:// alone")
        return self


class VolumeSection(Section):
    """`[storage.volume]`: a Kubernetes volume that many nodes write to."""

    claim: str = "asclepius-data"
    folder: str = Field(default="/data", pattern=r"^/[^/]+(/[^/]+)*$")
    """Where pods see it."""
    storage_class: str = Field(min_length=1)
    size_gib: PositiveInt = 1024


class StorageSection(Section):
    """`[storage]`: one place that all nodes see."""

    bucket: BucketSection | None = None
    volume: VolumeSection | None = None

    @model_validator(mode="after")
    def _is_one_place(self) -> "StorageSection":
        if (self.bucket is None) == (self.volume is None):
            raise ValueError("give one of storage.bucket and storage.volume")
        return self
