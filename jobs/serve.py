"""Model → endpoint, on Ray Serve, until SIGTERM.

python jobs/serve.py RUN.toml [--set section.key=value]...
"""

import sys

from asclepius_ray.cli import run_job_page

if __name__ == "__main__":
    sys.exit(run_job_page("serve", sys.argv[1:]))
