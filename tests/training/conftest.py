"""Makes `artefacts.py` of this folder importable by its tests, and sums of this machine repeatable."""

import os
import sys
from pathlib import Path

# MKL's fastest kernels on some CPUs (seen with AMX) round by where a matrix lies in memory, which is
# another place with another number of workers. With this it rounds alike everywhere.
os.environ["MKL_CBWR"] = "COMPATIBLE"

sys.path.insert(0, str(Path(__file__).parent))
