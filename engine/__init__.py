"""The library behind CLIP Tuning Lab: towers, methods, caching, accounting, evaluation."""

import os

# Before torch loads OpenMP: threads that wait by spinning hold up the backward pass's own threads on few cores
# (full fine-tuning of Pocket CLIP on two cores: 58 s of training spinning, 9 s sleeping).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Before huggingface_hub: its own transport cannot be stopped from outside, plain HTTP can.
os.environ.setdefault("HF_HUB_DISABLE_XET", "1")
