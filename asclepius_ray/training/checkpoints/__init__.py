"""Checkpoints that any number of workers and any ZeRO stage can go on from.

`training/step-NNNNNNN/` holds the pieces that each rank owned of every parameter's (master, exp_avg,
exp_avg_sq), and `COMMIT`, which lists them with their sha256 and is written last.
"""
