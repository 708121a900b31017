"""File names of checkpoints, for code that runs without torch."""

WEIGHTS = "model.safetensors"
"""Our own weights."""
WEIGHTS_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
"""Suffixes of files that `load_checkpoint` reads."""
MERGES = "merges.txt.gz"
OPENCLIP_CONFIG = "open_clip_config.json"
OPENCLIP_SAFETENSORS = ("open_clip_model.safetensors", WEIGHTS)
OPENCLIP_WEIGHTS = (*OPENCLIP_SAFETENSORS, "open_clip_pytorch_model.bin")
"""Names of OpenCLIP's weights, in order of preference."""
