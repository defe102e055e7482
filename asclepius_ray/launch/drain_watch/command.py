"""The command `asclepius drain-watch`, put together from its options."""

from dataclasses import dataclass

from asclepius_ray.errors import ConfigError, Interrupted
from asclepius_ray.launch.drain_watch.aws import AwsNotices
from asclepius_ray.launch.drain_watch.draining import Say
from asclepius_ray.launch.drain_watch.gcp import GcpNotices
from asclepius_ray.launch.drain_watch.local_nodes import find_ray_nodes
from asclepius_ray.launch.drain_watch.metadata import AnyCloud, Provider, open_client
from asclepius_ray.launch.drain_watch.notices import STOP, Notice
from asclepius_ray.launch.drain_watch.watch import Watch

AUTO = "auto"


@dataclass(frozen=True)
class WatchOptions:
    """As the command line gives them."""

    provider: str
    address: str
    poll_seconds: float
    now: bool
    grace_seconds: float
    rebalance: bool
    node: str


def watch_and_drain(options: WatchOptions, say: Say) -> None:
    """Watches until this machine has been drained; an Interrupted on Ctrl-C and SIGTERM."""
    clouds = _open_clouds(options)
    watch = _make_watch(options, say)
    try:
        if not options.now:
            watch.run(AnyCloud(clouds), gives_up=options.provider != AUTO)
        elif watch.find_nodes():
            watch.drain(Notice(STOP))
        else:
            say("no Ray node runs here: there is nothing to drain")
    except KeyboardInterrupt:
        raise Interrupted(
            "the watch has been stopped; a drain that Ray knows of goes on without it. Start it again to be "
            "told of notices"
        ) from None


def _open_clouds(options: WatchOptions) -> list[Provider]:
    """The clouds whose notices are read: the one that was named, else all."""
    client = open_client(options.address)
    clouds: dict[str, Provider] = {
        AwsNotices.name: AwsNotices(client, options.rebalance),
        GcpNotices.name: GcpNotices(client),
    }
    if options.provider not in (*clouds, AUTO):
        raise ConfigError(f"--provider {options.provider!r}: it takes {', '.join([*clouds, AUTO])}")
    if options.now and (options.provider != AUTO or options.rebalance):
        raise ConfigError("--now asks no cloud: leave --provider and --rebalance out")
    if options.rebalance and options.provider == GcpNotices.name:
        raise ConfigError("--rebalance: gcp gives no such recommendations; leave it out")
    return list(clouds.values()) if options.provider == AUTO else [clouds[options.provider]]


def _make_watch(options: WatchOptions, say: Say) -> Watch:
    # At the start: a notice leaves half a minute, and a busy machine may take many seconds to import Ray.
    from asclepius_ray.launch.drain_watch.drain_call import drain_node

    return Watch(
        find_nodes=lambda: find_ray_nodes(options.node),
        drain_node=drain_node,
        say=say,
        poll_seconds=options.poll_seconds,
        grace_seconds=options.grace_seconds,
    )
