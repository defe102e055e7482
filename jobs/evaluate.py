"""Model → scores, with a judge, over held-out rows.

python jobs/evaluate.py RUN.toml [--set section.key=value]... [--redo evaluate]
"""

import sys

from asclepius_ray.cli import run_job_page

if __name__ == "__main__":
    sys.exit(run_job_page("evaluate", sys.argv[1:]))
