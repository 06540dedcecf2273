"""The tiny random models that measures are tested with, too."""

from ..evaluation.conftest import (  # noqa: F401
    benchmark_data,
    clip,
    dataset,
    detector,
    dino,
    model_root,
    orientation,
    pictures,
)
