"""The sockets of every kind of node that the workflows use, in the node's order. Widgets are not listed."""

KINDS = {
    # ComfyUI's own.
    "UNETLoader": ("", "MODEL"),
    "LoraLoaderModelOnly": ("MODEL", "MODEL"),
    "ModelSamplingFlux": ("MODEL", "MODEL"),
    "ModelSamplingAuraFlow": ("MODEL", "MODEL"),
    "CFGNorm": ("MODEL", "MODEL"),
    "DualCLIPLoader": ("", "CLIP"),
    "CLIPLoader": ("", "CLIP"),
    "CLIPTextEncode": ("CLIP", "CONDITIONING"),
    "TextEncodeQwenImageEditPlus": (
        "CLIP VAE? image1:IMAGE? image2:IMAGE? image3:IMAGE?",
        "CONDITIONING",
    ),
    "FluxKontextMultiReferenceLatentMethod": ("CONDITIONING", "CONDITIONING"),
    "VAELoader": ("", "VAE"),
    "LoadImage": ("", "IMAGE MASK"),
    "PreviewImage": ("images:IMAGE", ""),
    "SaveImage": ("images:IMAGE", ""),
    "PreviewAny": ("source:*", ""),
    "CreateBoundingBoxes": (
        "background:IMAGE? bboxes:BOUNDING_BOX?",
        "preview:IMAGE bboxes:BOUNDING_BOX elements:ARRAY",
    ),
    "ComfySwitchNode": ("on_false:* on_true:*", "output:*"),
    "RandomNoise": ("", "NOISE"),
    "KSamplerSelect": ("", "SAMPLER"),
    "BasicScheduler": ("MODEL", "SIGMAS"),
    "Flux2Scheduler": ("", "SIGMAS"),
    "EmptySD3LatentImage": ("", "LATENT"),
    "EmptyLatentImage": ("", "LATENT"),
    "EmptyFlux2LatentImage": ("", "LATENT"),
    "BasicGuider": ("MODEL CONDITIONING", "GUIDER"),
    "CFGGuider": ("MODEL positive:CONDITIONING negative:CONDITIONING", "GUIDER"),
    "SamplerCustomAdvanced": (
        "NOISE GUIDER SAMPLER SIGMAS latent_image:LATENT",
        "output:LATENT denoised_output:LATENT",
    ),
    "VAEDecode": ("samples:LATENT VAE", "IMAGE"),
    # Ours.
    "SqueezeToyWorld": ("", "model:MODEL vae:VAE mllm:SQUEEZE_MLLM dla:SQUEEZE_DLA picture:IMAGE"),
    "SqueezeLoadMLLM": ("", "mllm:SQUEEZE_MLLM"),
    "SqueezeLoadAdapter": ("MODEL", "model:MODEL dla:SQUEEZE_DLA"),
    "SqueezeEncode": (
        "mllm:SQUEEZE_MLLM images.picture_1:IMAGE? images.picture_2:IMAGE? images.picture_3:IMAGE? "
        "for_adapter:SQUEEZE_DLA?",
        "states:SQUEEZE_STATES",
    ),
    "SqueezeWritePrompt": (
        "mllm:SQUEEZE_MLLM images.picture_1:IMAGE? images.picture_2:IMAGE? images.picture_3:IMAGE?",
        "prompt:STRING",
    ),
    "SqueezeAggregate": (
        "states:SQUEEZE_STATES dla:SQUEEZE_DLA clip_l:CONDITIONING?",
        "positive:CONDITIONING negative:CONDITIONING weights:SQUEEZE_WEIGHTS",
    ),
    "SqueezeShowLayers": ("weights:SQUEEZE_WEIGHTS", "image:IMAGE"),
    "SqueezeReferenceTokens": (
        "VAE IMAGE MASK? references:SQUEEZE_REFERENCES?",
        "references:SQUEEZE_REFERENCES image:IMAGE",
    ),
    "SqueezeTimestepGate": (
        "CONDITIONING references:SQUEEZE_REFERENCES? MODEL? negative:CONDITIONING? null:CONDITIONING? LATENT?",
        "conditioning:CONDITIONING negative:CONDITIONING",
    ),
    "SqueezeShowGate": ("CONDITIONING SIGMAS negative:CONDITIONING?", "image:IMAGE"),
    "SqueezeSigmas": ("MODEL", "sigmas:SIGMAS"),
    "SqueezeSubject": (
        "CONDITIONING references:SQUEEZE_REFERENCES? region:MASK? box:BOUNDING_BOX? subjects:SQUEEZE_SUBJECTS?",
        "subjects:SQUEEZE_SUBJECTS",
    ),
    "SqueezeApplyLayout": (
        "subjects:SQUEEZE_SUBJECTS CONDITIONING? boxes:BOUNDING_BOX? plan:SQUEEZE_PLAN?",
        "conditioning:CONDITIONING",
    ),
    "SqueezePlanScene": (
        "images.picture_1:IMAGE? images.picture_2:IMAGE? images.picture_3:IMAGE? images.picture_4:IMAGE? "
        "mllm:SQUEEZE_MLLM?",
        "plan:SQUEEZE_PLAN text:STRING image:IMAGE report:STRING",
    ),
    "SqueezeEditPlan": (
        "plan:SQUEEZE_PLAN? boxes:BOUNDING_BOX? masks:MASK?",
        "plan:SQUEEZE_PLAN boxes:BOUNDING_BOX masks:MASK image:IMAGE text:STRING",
    ),
    "SqueezeEncodePlan": (
        "plan:SQUEEZE_PLAN mllm:SQUEEZE_MLLM dla:SQUEEZE_DLA references:SQUEEZE_REFERENCES? clip_l:CONDITIONING?",
        "subjects:SQUEEZE_SUBJECTS scene:CONDITIONING negative:CONDITIONING",
    ),
}
