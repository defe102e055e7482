"""Case reports → notes → questions → answers → dataset, with a teacher, on Ray Data.

python jobs/synthesize.py RUN.toml [--set section.key=value]... [--redo synthesize]
"""

import sys

from asclepius_ray.cli import run_job_page

if __name__ == "__main__":
    sys.exit(run_job_page("synthesize", sys.argv[1:]))
