"""The paper's tables as data, so that our rows can stand among them, marked for what they are.

Values as printed in arXiv 2605.26111. The keys are the metric keys of the measures.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """columns: metric keys. rows: (method, values in their order; None where the paper has none)."""

    key: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[float | None, ...]], ...]
    comparable: bool = True
    source: str = "arXiv 2605.26111"


_DREAMBENCH = ("dino_i", "clip_i", "clip_t")
_JUDGES = ("judge_a", "judge_b", "judge_c", "judge_d", "judge_e", "judge_f", "judge_g", "average")
JUDGES = {
    "judge_a": "GPT-4o",
    "judge_b": "Gemma 3 27B",
    "judge_c": "Gemini 2.5 Flash",
    "judge_d": "Gemini 3 Flash",
    "judge_e": "Qwen3-VL-30B-A3B-Thinking",
    "judge_f": "Qwen3-VL-235B-A22B-Thinking",
    "judge_g": "Mistral-Small-3.2-24B-Instruct",
}

TABLES: dict[str, Table] = {
    table.key: table
    for table in (
        Table(
            "1",
            "Table 1, DreamBench",
            _DREAMBENCH,
            (
                ("OminiControl", (0.5987, 0.7840, 0.3186)),
                ("OmniGen2", (0.7323, 0.8268, 0.3185)),
                ("UNO", (0.7484, 0.8354, 0.3040)),
                ("UNO (UNO-1M only)", (0.6860, 0.8161, 0.3071)),
                ("XVerse", (0.7215, 0.8175, 0.3098)),
                ("DreamO", (0.7537, 0.8356, 0.3086)),
                ("USO", (0.7478, 0.8263, 0.3213)),
                ("UMO", (0.7481, 0.8339, 0.3022)),
                ("DreamEngine", (0.5195, 0.7428, 0.3006)),
                ("Qwen-Image", (0.7317, 0.8261, 0.3158)),
                ("EasyRef", (0.6961, 0.8153, 0.3031)),
                ("The paper (MLLM only)", (0.6788, 0.8228, 0.2988)),
                ("The paper (MLLM + VAE)", (0.7482, 0.8443, 0.3010)),
            ),
        ),
        Table(
            "2",
            "Table 2, variation of the subject's pose",
            ("azimuth", "polar", "recall"),
            (
                ("OmniGen2", (22.6, 7.0, 0.486)),
                ("DreamO", (22.1, 9.6, 0.372)),
                ("USO", (20.8, 9.6, 0.401)),
                ("Qwen-Image", (17.6, 7.8, 0.460)),
                ("The paper", (25.7, 10.4, 0.349)),
            ),
        ),
        Table(
            "3",
            "Table 3, multimodal reasoning",
            ("clip_t",),
            (
                ("UNO", (0.2851,)),
                ("DreamO", (0.2888,)),
                ("Qwen-Image", (0.3099,)),
                ("The paper", (0.3208,)),
            ),
        ),
        Table(
            "4",
            "Table 4, MLLM judges on DreamBench++",
            _JUDGES,
            (
                ("DreamO", (2.837, 2.892, 2.802, 3.402, 2.737, 2.462, 2.737, 2.838)),
                ("UNO", (2.539, 2.753, 2.474, 3.027, 2.303, 2.103, 2.576, 2.539)),
                ("USO", (2.790, 2.868, 2.798, 3.410, 2.663, 2.400, 2.668, 2.800)),
                ("The paper", (3.119, 2.969, 3.006, 3.568, 2.962, 2.601, 2.847, 3.010)),
            ),
        ),
        Table(
            "5",
            "Table 5, user study",
            ("score",),
            (
                ("XVerse", (5.75,)),
                ("DreamO", (6.31,)),
                ("USO", (6.74,)),
                ("UMO", (6.02,)),
                ("The paper", (7.26,)),
            ),
        ),
        Table(
            "6",
            "Table 6, ways to connect the MLLM",
            _DREAMBENCH,
            (
                ("Last layer", (0.6566, 0.8128, 0.2893)),
                ("Last layer (blend ViT)", (0.7118, 0.8286, 0.2850)),
                ("Last layer (mix ViT)", (0.7097, 0.8233, 0.2946)),
                ("Single LAP 0-9", (0.7167, 0.8391, 0.2969)),
                ("Single LAP 10-19", (0.7315, 0.8463, 0.2957)),
                ("Single LAP 20-28", (0.7325, 0.8386, 0.2981)),
                ("Single LAP 0-28", (0.7524, 0.8502, 0.2878)),
                ("Single LAP 0-9, residual", (0.7282, 0.8497, 0.2944)),
                ("Single LAP 10-19, residual", (0.7109, 0.8377, 0.2958)),
                ("Single LAP 20-28, residual", (0.7246, 0.8389, 0.2963)),
                ("Single LAP 0-28, residual", (0.7242, 0.8379, 0.2974)),
                ("DLA 0-28, residual", (0.7275, 0.8401, 0.3013)),
                ("DLA 0-28", (0.7482, 0.8443, 0.3010)),
            ),
        ),
        Table(
            "7",
            "Table 7, one stage or two",
            _DREAMBENCH,
            (
                ("Single-stage training without the gate", (0.7184, 0.8245, 0.2971)),
                ("Single-stage training with the gate", (0.5763, 0.7686, 0.2995)),
                ("Two-stage training", (0.7482, 0.8443, 0.3010)),
            ),
        ),
        Table(
            "C",
            "Table C, gate and guidance",
            _DREAMBENCH,
            (
                ("tau 0.00, 0.00, CFG 2.5", (0.6905, 0.8225, 0.3044)),
                ("tau 1.00, 1.00, CFG 2.5", (0.7351, 0.8462, 0.2554)),
                ("tau 0.97, 0.90, CFG 2.5", (0.7490, 0.8466, 0.2963)),
                ("tau 0.85, 0.70, CFG 2.5", (0.7282, 0.8376, 0.3034)),
                ("tau 0.95, 0.85, CFG 1.5", (0.7268, 0.8385, 0.2990)),
                ("tau 0.95, 0.85, CFG 2.0", (0.7418, 0.8430, 0.3004)),
                ("tau 0.95, 0.85, CFG 2.5", (0.7482, 0.8443, 0.3010)),
                ("tau 0.95, 0.85, CFG 3.0", (0.7481, 0.8428, 0.3008)),
                ("tau 0.95, 0.85, CFG 4.0", (0.7431, 0.8381, 0.3012)),
            ),
        ),
        Table(
            "D",
            "Table D, MLLMs",
            _DREAMBENCH,
            (
                ("InternVL3-8B", (0.7482, 0.8443, 0.3010)),
                ("InternVL3-2B", (0.7415, 0.8380, 0.2987)),
                ("Qwen2.5-VL-3B", (0.7194, 0.8300, 0.3027)),
                ("Qwen2.5-VL-7B", (0.7282, 0.8241, 0.3031)),
            ),
        ),
        Table(
            "E:XVerseBench",
            "Table E, XVerseBench",
            ("ip_sim",),
            (("DreamO", (76.08,)), ("UNO", (80.36,)), ("USO", (78.90,)), ("The paper", (79.10,))),
        ),
        Table(
            "E:LAMICBench",
            "Table E, LAMICBench (two subjects)",
            ("ip_sim",),
            (("DreamO", (65.25,)), ("UNO", (64.93,)), ("USO", (None,)), ("The paper", (66.46,))),
        ),
        Table(
            "MSIC",
            "MSIC, for orientation only: another set of pictures",
            _DREAMBENCH,
            (
                ("Subject Diffusion", (0.513, 0.702, 0.287)),
                ("MIP-Adapter", (0.497, 0.715, 0.288)),
                ("MS-Diffusion", (0.532, 0.714, 0.290)),
                ("OmniGen", (0.525, 0.714, 0.300)),
                ("UNO", (0.541, 0.721, 0.296)),
                ("MUSIC", (0.622, 0.812, 0.322)),
                ("MUSIC*", (0.631, 0.822, 0.330)),
            ),
            comparable=False,
            source="arXiv 2604.07422",
        ),
    )
}
