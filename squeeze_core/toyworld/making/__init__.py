"""How the toy world's base models are made: VAE, MLLM and FLUX, each a `Task` for the training loop.

The two stages of the method come after, by `squeeze train` with `configs/toy_stage1.yaml` and `toy_stage2.yaml`.
"""
