"""Writes the workflow files: python workflows/make/write.py. Then run the tests of workflows and of the page."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import gates
import squeeze
import subjects

if __name__ == "__main__":
    for build in (*gates.ALL, *squeeze.ALL, *subjects.ALL):
        print(build().write())
