"""Dataset → token blocks → checkpoints → model, with DeepSpeed on Ray Train.

python jobs/train.py RUN.toml [--set section.key=value]... [--redo train]
"""

import sys

from asclepius_ray.cli import run_job_page

if __name__ == "__main__":
    sys.exit(run_job_page("train", sys.argv[1:]))
