"""Case reports → dataset → model → scores → report: all stages, skipping what is finished.

python jobs/pipeline.py RUN.toml [--set section.key=value]... [--redo STAGE]
"""

import sys

from asclepius_ray.cli import main

if __name__ == "__main__":
    main(["run", "pipeline", *sys.argv[1:]])
