"""Dataset → token blocks → checkpoints → model, with DeepSpeed on Ray Train.

python jobs/train.py RUN.toml [--set section.key=value]... [--redo train]
"""

import sys

from asclepius_ray.cli import main

if __name__ == "__main__":
    main(["run", "train", *sys.argv[1:]])
