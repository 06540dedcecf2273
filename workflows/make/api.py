"""Write each workflow's API copy, for scripts, as the page sends it.

Run `python3 workflows/make/api.py COMFYUI` with the folder of a ComfyUI after `write.py`.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "comfyui"))

from comfy_server import ComfyServer  # noqa: E402
from comfy_workflow import workflow_to_prompt  # noqa: E402

with tempfile.TemporaryDirectory() as folder:
    server = ComfyServer(Path(sys.argv[1]).expanduser(), ROOT, Path(folder))
    try:
        server.wait_until_ready()
        kinds = server.object_info()
    finally:
        server.stop()
for path in sorted((ROOT / "workflows").glob("*.json")):
    sent = workflow_to_prompt(json.loads(path.read_text(encoding="utf-8")), kinds)
    copy = path.parent / "api" / path.name
    copy.write_text(json.dumps(sent, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    print(copy.relative_to(ROOT))
