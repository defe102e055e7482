"""Model → endpoint, on Ray Serve, until SIGTERM.

python jobs/serve.py RUN.toml [--set section.key=value]...
"""

import sys

from asclepius_ray.cli import main

if __name__ == "__main__":
    main(["run", "serve", *sys.argv[1:]])
