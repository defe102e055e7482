"""Case reports in, a served clinical language model out, on a laptop or a Ray cluster."""
