"""A bucket that speaks the real S3 protocol on this machine."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import boto3
from moto.server import ThreadedMotoServer


@contextmanager
def local_bucket(name: str, address: str = "127.0.0.1") -> Iterator[str]:
    """Yields the URI of a new bucket, with {} for the path in it; the server listens at `address`."""
    server = ThreadedMotoServer(ip_address=address, port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    os.environ["AWS_ACCESS_KEY_ID"] = os.environ["AWS_SECRET_ACCESS_KEY"] = "testing"
    client = boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1")
    client.create_bucket(Bucket=name)
    yield f"s3://{name}/{{}}?scheme=http&endpoint_override={host}:{port}&region=us-east-1"
    server.stop()
