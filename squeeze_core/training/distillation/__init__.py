"""Stage 0: the aggregator learns from words to make FLUX do with the MLLM's states what it does with T5's.

`config.py` the settings, `teacher.py` what FLUX's own text encoder says, `fit.py` the least squares that it begins
with, `attention.py` X2I's loss, `task.py` the training, `build.py` puts a config together. X2I (arXiv 2503.06134)
made its aligner this way, without the fit and without pictures.
"""
