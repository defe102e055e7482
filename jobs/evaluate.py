"""Model → scores, with a judge, over held-out rows.

python jobs/evaluate.py RUN.toml [--set section.key=value]... [--redo evaluate]
"""

import sys

from asclepius_ray.cli import main

if __name__ == "__main__":
    main(["run", "evaluate", *sys.argv[1:]])
