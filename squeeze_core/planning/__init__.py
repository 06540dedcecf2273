"""Many subjects in one picture: what stands where is planned before anything is drawn (MUSIC, arXiv 2604.07422).

plan.py      `ScenePlan`, and its JSON
grid.py      boxes and masks -> an 8 x 8 grid of subject numbers, and back
pixels.py    boxes in pixels, as ComfyUI draws them
picture.py   a plan as a picture
files.py     plan files
checks.py    what a plan must keep, and what is put right by itself
rule.py      a plan from the words of an instruction, without a model (`sentence.py` reads, `places.py` places)
planner.py   a plan by an MLLM, in words of `prompt.py`, in JSON of `schema.py`
adapter.py   what an MLLM was trained with to plan
measures.py  plans against right ones;   placement.py  pictures against their plans
"""
