"""Before torch is loaded: OpenMP threads that wait should sleep, for tests share their cores with servers."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
