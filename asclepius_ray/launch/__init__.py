"""Sending the job package to a cluster, and the manifests of one."""
