"""Subject-driven generation with a multimodal LLM: the method, without any host.

Reading order follows the data: `mllm` (text and pictures -> layer states), `dla` (layer states ->
context tokens), `references` (pictures -> reference latents), `gate` (which of the two speaks at a
noise level), `sigmas`, `adapter` (the file of a trained model), `pipeline` (headless generation).

Nothing heavy is imported here: `import squeeze_core` costs no transformers and no diffusers.
"""

__version__ = "0.1.0"
