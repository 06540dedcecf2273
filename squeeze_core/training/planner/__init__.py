"""MUSIC's first training (f1): an MLLM learns to plan from scenes whose plan is known (arXiv 2604.07422)."""
