"""Several models, or models from no replica on, under one address: a small front that asks their replicas."""
