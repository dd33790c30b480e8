"""PEFT's tuners whose update is made from the frozen weight itself: rows of the table."""

from __future__ import annotations

from engine.methods.peft_row import Row, low_rank, up_to
from engine.tuning.tuner import option

KEEPS = "what PEFT trains and the {} that it took from the weights; also in PEFT's own format"

WEIGHT_AWARE = (
    Row(
        "hira", "HiRA", "Each weight is multiplied, entry by entry, by one plus a low-rank matrix.",
        "LoRA levels off because its rank is too low, and no more numbers than LoRA's are to be trained.",
        "W′ = W + W ∘ (B·A)",
        "Huang et al. 2025, HiRA: Parameter-Efficient Hadamard High-Rank Adaptation, ICLR 2025, OpenReview TwJrTz9cRS",
        "HiraConfig", low_rank(8), lambda c, layers: {"r": c.r}, "Σ r(in + out)", 1e-2,
        "An entry that is near zero stays there, and weights are small: it needs a larger learning rate than LoRA.",
        by_width=True,
    ),
    Row(
        "glora", "GLoRA", "Scales and shifts each weight, both by low-rank matrices.",
        "You want LoRA's update and HiRA's in one method, and twice the parameters are acceptable.",
        "W′ = W + W ∘ A + B,  A and B of rank r (the paper's biases are left out: not every layer has one)",
        "Chavan et al. 2023, One-for-All: Generalized LoRA, arXiv 2306.07967", "GloraConfig", low_rank(4),
        lambda c, layers: {"r": c.r, "config_A_B": "lora", "config_C": "none", "config_D_E": "none"},
        "Σ 2r(in + out)", 1e-3, "Every step builds each whole weight, so it is slower than LoRA.", by_width=True,
    ),
    Row(
        "peanut", "PEANuT", "A small network reads each frozen weight and writes its update.",
        "You want an update that need not be linear in its few parameters, and slower steps are acceptable.",
        "W′ = W + scale·(relu(Wᵀ·A)·B)ᵀ,  between A and B a pair of r x r layers for each level of depth",
        "Zhong et al. 2024, PEANuT: Parameter-Efficient Adaptation with Weight-aware Neural Tweakers, "
        "arXiv 2410.01870", "PeanutConfig",
        {
            **low_rank(8, "width of the network"),
            "depth": option(0, 0, 8, help="pairs of hidden layers between the first and the last"),
            "scale": option(1.0, 0.001, 100, help="factor on the update"),
        },
        lambda c, layers: {"r": c.r, "depth": c.depth, "scaling": c.scale}, "Σ 2r·out + 2depth·r²", 3e-3,
        "Every step builds each whole update, so it is slower than LoRA.", by_width=True,
    ),
    Row(
        "deft", "DEFT", "Takes a few directions out of each weight's outputs and writes new ones in their place.",
        "The new images should replace a part of what the model knows, and the rest should stay as it is.",
        "W′ = (I − P·relu(P)ᵀ)·W + P·R,  R starts at relu(P)ᵀ·W",
        "Kumar et al. 2025, DEFT: Decompositional Efficient Fine-Tuning, arXiv 2509.22793", "DeftConfig", low_rank(8),
        lambda c, layers: {"r": c.r}, "Σ r(in + out)", 1e-3,
        "Made for drawing new things after a few pictures; what it is worth for recognising is hardly known.",
        by_width=True,
    ),
    Row(
        "psoft", "PSOFT", "Turns and scales each weight's strongest directions, and leaves the others alone.",
        "OFT is what you need, and far fewer numbers are to be trained.",
        "W′ = W + B·(diag(b)·R·diag(a) − I)·A,  A and B the r largest singular directions, R orthogonal",
        "Wu et al. 2025, Efficient Orthogonal Fine-Tuning with Principal Subspace Adaptation, arXiv 2505.11235",
        "PsoftConfig", low_rank(32, "directions of each weight that are turned"),
        lambda c, layers: {"r": up_to(c.r, layers), "psoft_alpha": up_to(c.r, layers)}, "r(r - 1)/2 + 2r a layer", 3e-3,
        "The file also holds the directions, for their signs differ between machines: it is as large as LoRA's or "
        "larger.", keeps=frozenset({"_psoft_A_cache", "_psoft_B_cache"}), saved=KEEPS.format("directions"),
    ),
    Row(
        "tinylora", "TinyLoRA", "A few numbers a layer, spread by random matrices, mix its strongest directions.",
        "You want to see how few numbers are enough.",
        "W′ = W + B·(Σᵢ vᵢ·Pᵢ)·A,  A and B the r largest singular directions, Pᵢ random and frozen",
        "Morris et al. 2026, Learning to Reason in 13 Parameters, arXiv 2602.04118", "TinyLoraConfig",
        {
            **low_rank(8, "directions of each weight; the paper's 2 hardly learn here"),
            "u": option(64, 1, 4096, help="trained numbers a layer"),
        },
        lambda c, layers: {"r": c.r, "u": c.u}, "u a layer", 1e-2,
        "Few directions a layer can change little; it was made for large language models.",
        keeps=frozenset({"tinylora_A", "tinylora_B"}), saved=KEEPS.format("directions"),
    ),
    Row(
        "osf", "OSF", "Keeps each weight's strongest directions and trains the weak ones, orthogonal to them.",
        "Other labels must not be forgotten, and there are enough images to train many numbers.",
        "W′ = U₁·S₁·V₁ + U·diag(s)·V,  the first term frozen, gradients of U and V orthogonal to it",
        "Nayak et al. 2025, Sculpting Subspaces: Constrained Full Fine-Tuning for Continual Learning, arXiv 2504.07097",
        "OSFConfig", {"kept": option(0.9, 0.01, 0.99, help="share of each weight's directions that stay, 0 to 1")},
        lambda c, layers: {"effective_rank": c.kept}, "Σ k(in + out + 1), k the directions that are trained", 3e-3,
        "The weak directions change little; with a small share kept it nears full fine-tuning in size and memory.",
        by_width=True,
    ),
    Row(
        "supertuning", "Super-Tuning", "Trains the largest entries of each weight and no others.",
        "You want full fine-tuning's freedom at a hundredth of its parameters.",
        "W′ = W + D,  D zero but at the entries of largest |W|",
        "Super-Tuning: From Activation-Aware Pruning to Sparse Fine-Tuning, 2026, arXiv 2607.09287",
        "SupertuningConfig", {"share": option(0.01, 0.001, 1, help="share of each weight's entries, 0 to 1")},
        lambda c, layers: {"sparsity": 1 - c.share}, "Σ share·in·out", 3e-3,
        "The largest entries need not be those that the labels need.", by_width=True,
        keeps=frozenset({"supertuning_indices"}), saved=KEEPS.format("places"),
    ),
)  # fmt: skip
