"""MUSIC's data set (arXiv 2604.07422, section 3.1), from a list of categories to samples that training reads.

record.py      what is known of a sample so far
config.py      how many, how large, which models
roles.py       what the models of the stages must be able to do
ten stages     one file each: categories, captions, targets, boxes, verification, references, masks, grids,
               thoughts, decimation
ledger.py      what a stage has done, on disk, by record
build.py       runs the stages one after the other; `ray_executor.py` on many machines
card.py        the data card and its contact sheets
models.py      the real models; the toy world has its own (`toyworld/music.py`)
"""
