"""How Ray's head is told to drain a node."""

import grpc
import ray
from ray._private.grpc_utils import init_grpc_channel
from ray.core.generated import autoscaler_pb2, autoscaler_pb2_grpc

from asclepius_ray.launch.drain_watch.local_nodes import RayAway, RayNode

CALL_SECONDS = 5.0
TROUBLES = {
    grpc.StatusCode.UNAUTHENTICATED: (
        "its head refuses the token; set RAY_AUTH_MODE and RAY_AUTH_TOKEN as on the cluster"
    ),
    grpc.StatusCode.UNAVAILABLE: "its head cannot be reached",
    grpc.StatusCode.DEADLINE_EXCEEDED: "its head does not answer in time",
}


def drain_node(node: RayNode, deadline_unix: float, kind: str) -> bool:
    """Asks the head to drain the node, as before a preemption; whether it now has it as draining.

    False for a node that the head does not know yet: it takes the request, and nothing comes of it.
    By gRPC, because Ray's own client ends the whole process when the head stays away for a minute.
    """
    request = autoscaler_pb2.DrainNodeRequest(
        node_id=bytes.fromhex(node.node_id),
        reason=autoscaler_pb2.DrainNodeReason.DRAIN_NODE_REASON_PREEMPTION,
        reason_message=kind,
        deadline_timestamp_ms=round(deadline_unix * 1000),
    )
    channel = init_grpc_channel(node.gcs_address)
    try:
        stub = autoscaler_pb2_grpc.AutoscalerStateServiceStub(channel)
        reply = stub.DrainNode(request, timeout=CALL_SECONDS)
        asked = autoscaler_pb2.GetClusterResourceStateRequest()
        state = stub.GetClusterResourceState(asked, timeout=CALL_SECONDS).cluster_resource_state
    except grpc.RpcError as error:
        raise RayAway(TROUBLES.get(error.code(), f"its head answers {error.code().name}")) from None
    except ray.exceptions.AuthenticationError:
        raise RayAway("there is no token; set RAY_AUTH_TOKEN, or put it into ~/.ray/auth_token") from None
    finally:
        channel.close()
    if not reply.is_accepted:
        raise RayAway("its head does not take the request")
    return any(
        known.node_id == request.node_id and known.status == autoscaler_pb2.DRAINING
        for known in state.node_states
    )
