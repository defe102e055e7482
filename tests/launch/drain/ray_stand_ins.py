"""A process that looks like a raylet, and a head that answers as Ray's does: fast, and nobody else's."""

import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from ray.core.generated import autoscaler_pb2, autoscaler_pb2_grpc


@dataclass
class Raylet:
    """Runs until it is told to end."""

    node_id: str
    process: "subprocess.Popen[bytes]"

    def end(self) -> None:
        """Leaves a zombie, since nobody waits for it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        deadline = time.monotonic() + 10
        while Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            assert time.monotonic() < deadline
            time.sleep(0.01)


@contextmanager
def raylet(gcs_address: str, name: str = "raylet") -> Iterator[Raylet]:
    node_id = os.urandom(28).hex()
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / name
        program.write_text("#!/bin/sh\nread nothing\n")
        program.chmod(0o700)
        command = [str(program), f"--node_id={node_id}", f"--gcs-address={gcs_address}"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE)
        try:
            yield Raylet(node_id, process)
        finally:
            process.kill()
            process.wait()


@dataclass
class Head(autoscaler_pb2_grpc.AutoscalerStateServiceServicer):
    """Takes requests to drain; with a token, those alone that carry it."""

    token: str = ""
    requests: list[autoscaler_pb2.DrainNodeRequest] = field(default_factory=list)
    hang: threading.Event = field(default_factory=threading.Event)
    """Set: nothing is answered until it is cleared."""

    def DrainNode(  # noqa: N802  # as gRPC names it
        self, request: autoscaler_pb2.DrainNodeRequest, context: grpc.ServicerContext
    ) -> autoscaler_pb2.DrainNodeReply:
        self._check(context)
        self.requests.append(request)
        return autoscaler_pb2.DrainNodeReply(is_accepted=True)

    def GetClusterResourceState(  # noqa: N802  # as gRPC names it
        self, request: autoscaler_pb2.GetClusterResourceStateRequest, context: grpc.ServicerContext
    ) -> autoscaler_pb2.GetClusterResourceStateReply:
        self._check(context)
        reply = autoscaler_pb2.GetClusterResourceStateReply()
        for asked in self.requests:
            reply.cluster_resource_state.node_states.add(
                node_id=asked.node_id, status=autoscaler_pb2.DRAINING
            )
        return reply

    def _check(self, context: grpc.ServicerContext) -> None:
        while self.hang.is_set():
            time.sleep(0.05)
        sent = dict(context.invocation_metadata()).get("authorization")
        if self.token and sent != f"Bearer {self.token}":
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "a secret that nobody may read")


@contextmanager
def serving(head: Head, port: int = 0) -> Iterator[str]:
    """The head's address."""
    server = grpc.server(futures.ThreadPoolExecutor(4))
    autoscaler_pb2_grpc.add_AutoscalerStateServiceServicer_to_server(head, server)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        head.hang.clear()
        server.stop(None).wait()
