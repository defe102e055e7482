"""Case reports → notes → questions → answers → dataset, with a teacher, on Ray Data.

python jobs/synthesize.py RUN.toml [--set section.key=value]... [--redo synthesize]
"""

import sys

from asclepius_ray.cli import main

if __name__ == "__main__":
    main(["run", "synthesize", *sys.argv[1:]])
