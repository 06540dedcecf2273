"""Everything that knows FLUX.1: its shape, tokens, conditioning, forward, sampling, VAE, LoRA, file layouts."""
