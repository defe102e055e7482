"""Manifests → what a launcher, KubeRay or a job of ours would refuse later, found without a cluster."""
