"""Data sets for training: `examples.py` says what an example is and walks them, one file a data set.

A new data set implements `Examples` and becomes a `kind` of `squeeze_core.training.config.DataSource`.
"""
