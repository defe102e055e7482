"""Buying answers through a provider's batch endpoint: cheaper, within a day."""
