"""The table of PEFT's tuners of linear layers."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from engine.methods.peft_row import Row, alpha, block, divisor, even, inputs, low_rank, up_to, widths
from engine.methods.peft_weight_aware import WEIGHT_AWARE
from engine.tuning.tuner import option

TABLE = (
    Row(
        "dora", "DoRA", "LoRA that trains the length of each weight row apart from its direction.",
        "LoRA of a small rank stops short of what you need, and some more time a step is acceptable.",
        "W′ = m·V / ‖V‖ row by row,  V = W + (α/r)·B·A",
        "Liu et al. 2024, DoRA: Weight-Decomposed Low-Rank Adaptation, arXiv 2402.09353", "LoraConfig",
        {**low_rank(8), **alpha(16.0)},
        lambda c, layers: {"r": c.r, "lora_alpha": c.alpha, "use_dora": True},
        "Σ r(in + out) + out", 1e-3, "Every step builds each whole weight, so it is slower than LoRA.", by_width=True,
    ),
    Row(
        "adalora", "AdaLoRA", "LoRA that takes rank away from layers where it matters less.",
        "You train for many steps and do not know which layers need the rank.",
        "W′ = W + (α/r)·P·Λ·Q,  unimportant entries of the diagonal Λ are set to zero",
        "Zhang et al. 2023, AdaLoRA: Adaptive Budget Allocation, arXiv 2303.10512", "AdaLoraConfig",
        {
            "r": option(12, 1, 256, help="rank of each layer at the start"),
            "target_r": option(8, 1, 256, help="mean rank at the end"),
            **alpha(32.0),
            "orthogonality": option(0.5, 0, 10, help="weight of the factors' distance to orthogonal ones in the loss"),
        },
        lambda c, layers: {
            "init_r": c.r, "target_r": min(c.r, c.target_r), "lora_alpha": c.alpha,
            "orth_reg_weight": c.orthogonality,
        },
        "Σ r(in + out + 1)", 3e-3, "The budget is spread within few steps; with few images it is spread by noise.",
        by_width=True,
    ),
    Row(
        "ia3", "(IA)³", "Learns one factor for each key, each value and each hidden unit of the MLPs.",
        "The file must be tiny and what the model knows already almost suffices.",
        "k′ = l_k ∘ k,  v′ = l_v ∘ v,  hidden′ = l_h ∘ hidden",
        "Liu et al. 2022, Few-Shot Parameter-Efficient Fine-Tuning, arXiv 2205.05638", "IA3Config", {},
        lambda c, layers: {}, "Σ out (in for fc2)", 3e-2, "Can only strengthen or weaken what is there.",
        targets="k,v,fc2", convolutions=True,
    ),
    Row(
        "vera", "VeRA", "All layers share one frozen pair of random low-rank matrices; each trains two vectors.",
        "Many adapters have to be kept and each must be far smaller than a LoRA.",
        "W′ = W + diag(b)·B·diag(d)·A,  A and B random and frozen",
        "Kopiczko et al. 2023, VeRA: Vector-based Random Matrix Adaptation, arXiv 2310.11454", "VeraConfig",
        low_rank(256, "rank of the random matrices"), lambda c, layers: {"r": c.r}, "Σ r + out", 3e-2,
        "Needs a far larger learning rate than LoRA.",
    ),
    Row(
        "loha", "LoHa", "The update is the elementwise product of two low-rank matrices.",
        "The change you need has a high rank, but as few numbers as LoRA's are to be trained.",
        "W′ = W + (α/r)·(B₁·A₁) ∘ (B₂·A₂)",
        "Hyeon-Woo et al. 2021, FedPara, arXiv 2108.06098; Yeh et al. 2023, LyCORIS, arXiv 2309.14859", "LoHaConfig",
        {**low_rank(8), **alpha(8.0)},
        lambda c, layers: {"r": c.r, "alpha": c.alpha}, "Σ 2r(in + out)", 3e-3,
        "Learns slowly at first: a product of two small matrices is very small.", by_width=True,
    ),
    Row(
        "lokr", "LoKr", "The update is a Kronecker product of a small and a low-rank matrix.",
        "You want a smaller file than LoRA's and the widths have suitable divisors.",
        "W′ = W + (α/r)·C ⊗ (B·A)",
        "Yeh et al. 2023, Navigating Text-To-Image Customization (LyCORIS), arXiv 2309.14859", "LoKrConfig",
        {**low_rank(8), **alpha(8.0)},
        lambda c, layers: {"r": c.r, "alpha": c.alpha}, "as PEFT reports: depends on how the sizes factor", 3e-3,
        "The size of its factors follows from divisors of the widths, so backbones differ.", by_width=True,
    ),
    Row(
        "oft", "OFT", "Turns the inputs of each layer by trained rotations of blocks.",
        "Other labels must not be forgotten: rotations keep the angles between the weights.",
        "W′ = W·R,  R orthogonal, block by block",
        "Qiu et al. 2023, Controlling Text-to-Image Diffusion by Orthogonal Finetuning, arXiv 2306.07280", "OFTConfig",
        block(32), lambda c, layers: {"oft_block_size": divisor(c.block_size, inputs(layers))},
        "Σ in·(b - 1) / 2", 3e-3, "Rotations keep lengths, so it cannot strengthen one direction over another.",
    ),
    Row(
        "boft", "BOFT", "Turns the inputs of each layer by small rotations, and scales its outputs.",
        "OFT is what you need and its large blocks train more than you can afford.",
        "W′ = diag(m)·W·R,  R a product of sparse rotations (one factor here)",
        "Liu et al. 2023, Parameter-Efficient Orthogonal Finetuning via Butterfly Factorization, arXiv 2311.06243",
        "BOFTConfig", block(4),
        lambda c, layers: {"boft_block_size": divisor(c.block_size, inputs(layers)), "boft_n_butterfly_factor": 1},
        "Σ in·b + out", 1e-2,
        "Without PEFT's CUDA extension one butterfly factor is used, and then a block only mixes its own inputs.",
    ),
    Row(
        "fourierft", "FourierFT", "The update is a picture with few trained frequencies.",
        "The file must be tiny whatever the width, and slow steps are acceptable.",
        "W′ = W + scaling·real(IFFT₂(c)),  c zero but at the chosen frequencies",
        "Gao et al. 2024, Parameter-Efficient Fine-Tuning with Discrete Fourier Transform, arXiv 2405.03003",
        "FourierFTConfig",
        {
            "frequencies": option(1000, 1, 100_000, help="trained frequencies a layer"),
            "scaling": option(150.0, 0.01, 10_000, help="factor on the update"),
        },
        lambda c, layers: {
            "n_frequency": min(c.frequencies, *(i * o for _, _, i, o in layers)), "scaling": c.scaling,
            "init_weights": True,
        },
        "frequencies a layer", 1e-2, "Every step transforms each whole weight back, which is slow.",
    ),
    Row(
        "hra", "HRA", "Reflects the inputs of each layer at r trained mirrors.",
        "You want something between LoRA and OFT: few numbers, and lengths are kept.",
        "W′ = W·H₁·…·H_r,  Hᵢ = I − 2·uᵢ·uᵢᵀ/‖uᵢ‖²",
        "Yuan et al. 2024, Householder Reflection Adaptation, arXiv 2405.17484", "HRAConfig",
        low_rank(8, "number of reflections"), lambda c, layers: {"r": even(up_to(c.r, layers))},
        "Σ r·in", 1e-3,
        "Only an even number of reflections starts as the frozen model; an odd one is lowered by one.", by_width=True,
    ),
    Row(
        "randlora", "RandLoRA", "A sum of frozen random low-rank matrices with trained scales reaches full rank.",
        "LoRA levels off because its rank is too low, and there are enough images to use more.",
        "W′ = W + Σⱼ Bⱼ·Λⱼ·A·Γⱼ,  A and B random and frozen, Λ and Γ diagonal",
        "Albert et al. 2025, RandLoRA: Full-rank parameter-efficient fine-tuning, arXiv 2502.00987", "RandLoraConfig",
        low_rank(32, "rank of each random matrix; a smaller one trains more"),
        lambda c, layers: {"r": up_to(c.r, layers), "randlora_alpha": 20 * up_to(c.r, layers)},
        "as PEFT reports: Σ about max²/r + r·max", 1e-3, "A smaller rank trains more and is slower.",
    ),
    Row(
        "miss", "MiSS", "One small matrix is repeated over the shards of each weight.",
        "You want LoRA's effect with a single matrix a layer and quick steps.",
        "y = W·x + D·Σⱼ xⱼ,  x cut into pieces xⱼ of length r",
        "Kang & Yin 2024, arXiv 2409.15371", "MissConfig", low_rank(64), lambda c, layers: {"r": up_to(c.r, layers)},
        "Σ r·out", 1e-3, "Inputs of one shard are only seen through their sum.", by_width=True,
    ),
    Row(
        "road", "RoAd", "Turns pairs of outputs of each layer and scales them.",
        "The file must be tiny and steps quick, and scaling and mixing fixed pairs of outputs is enough.",
        "(y₁, y₂)′ = a·rotation(θ)·(y₁, y₂) for every pair of outputs",
        "Liao & Monz 2024, 3-in-1: 2D Rotary Adaptation, arXiv 2409.00119", "RoadConfig",
        {"group_size": option(64, 2, 1024, help="largest group of outputs; a common divisor up to it is used")},
        lambda c, layers: {"group_size": divisor(c.group_size, [o for *_, o in layers])}, "Σ out", 3e-2,
        "Can only mix outputs in fixed pairs.",
    ),
    Row(
        "c3a", "C³A", "The update is made of circulant blocks: each is one trained vector, shifted row by row.",
        "The change you need has a high rank and the widths share a large divisor.",
        "y = W·x + c ⊛ x, block by block (⊛ circular convolution)",
        "Chen et al. 2024, Parameter-Efficient Fine-Tuning via Circular Convolution, arXiv 2407.19342", "C3AConfig",
        block(64), lambda c, layers: {"block_size": divisor(c.block_size, widths(layers)), "init_weights": True},
        "Σ in·out / b", 0.3, "Every step transforms all activations to frequencies and back.",
    ),
    Row(
        "vblora", "VB-LoRA", "All low-rank matrices are mixed from one small bank of vectors.",
        "Many adapters have to be kept and the smallest possible file counts more than accuracy.",
        "W′ = W + B·A,  every piece of B and A a mix of the best two vectors of one bank",
        "Li et al. 2024, VB-LoRA: Extreme Parameter Efficient Fine-Tuning with Vector Banks, arXiv 2405.15179",
        "VBLoRAConfig",
        {
            **low_rank(4),
            "vectors": option(64, 2, 2048, help="vectors in the bank"),
            "vector_length": option(64, 1, 1024, help="largest length of a vector; a common divisor of the layers' "
                                     "sizes up to it is used"),
        },
        lambda c, layers: {
            "r": c.r, "num_vectors": c.vectors, "topk": min(2, c.vectors),
            "vector_length": divisor(c.vector_length, widths(layers)),
        },
        "vectors·length + Σ r·vectors(in + out) / length", 1e-2,
        "Most numbers that are trained choose vectors, and its start differs a little from zero-shot.",
        starts_at=None,
    ),
    Row(
        "delora", "DeLoRA", "LoRA with a bound on how far each weight may move, and the bound is trained.",
        "Learning rate or number of steps are uncertain: the bound keeps a run from drifting far.",
        "W′ = W + (λ‖W‖/r)·B·Ξ·A,  Ξ gives every rank-one part length one",
        "Bini et al. 2025, Decoupling Angles and Strength in Low-rank Adaptation, arXiv 2503.18225", "DeloraConfig",
        {**low_rank(8), "bound": option(15.0, 0.01, 1000, help="bound on the update at the start")},
        lambda c, layers: {"r": c.r, "delora_lambda": c.bound}, "Σ r(in + out) + 1", 1e-3,
        "Its gradients are scaled by the bound, so bound and learning rate go together.", by_width=True,
    ),
    Row(
        "gralora", "GraLoRA", "LoRA in a grid: each weight is cut into blocks with low-rank matrices of their own.",
        "LoRA of a high rank stops to help, and no more numbers are to be trained.",
        "W′ = W + (α/r)·[Bᵢⱼ·Aᵢⱼ],  k x k blocks of rank r/k",
        "Jung et al. 2025, GraLoRA: Granular Low-Rank Adaptation, arXiv 2505.20355", "GraloraConfig",
        {
            **low_rank(8), **alpha(16.0),
            "blocks": option(2, 1, 16, help="k, blocks along each side; the largest common divisor of the layers' "
                              "sizes and the rank up to it is used"),
        },
        lambda c, layers: {
            "r": c.r, "alpha": c.alpha, "gralora_k": divisor(c.blocks, [c.r, *widths(layers)]),
        },
        "Σ r(in + out)", 1e-3, "At small ranks its blocks have hardly any rank left.", by_width=True,
    ),
    Row(
        "waveft", "WaveFT", "The update is a picture made of few trained wavelets.",
        "The file must be tiny whatever the width, with changes in small places of a weight.",
        "W′ = W + scaling·IDWT(c),  c zero but at the chosen wavelets",
        "Bilican et al. 2025, Exploring Sparsity for Parameter Efficient Fine Tuning Using Wavelets, arXiv 2505.12532",
        "WaveFTConfig",
        {
            "frequencies": option(1000, 1, 100_000, help="trained wavelets a layer"),
            "scaling": option(25.0, 0.01, 10_000, help="factor on the update"),
        },
        lambda c, layers: {
            "n_frequency": min(c.frequencies, *(i * o for _, _, i, o in layers)), "scaling": c.scaling,
        },
        "frequencies a layer", 1e-3, "Its wavelets are chosen at random, and each reaches four entries of a weight.",
    ),
    Row(
        "pvera", "PVeRA", "VeRA whose low-rank path is noisy in training: it learns how noisy it may be.",
        "VeRA is what you need, and it overfits.",
        "y = W·x + diag(b)·B·z,  z drawn around diag(d)·A·x with a learned width; A and B random and frozen",
        "Fillioux et al. 2025, PVeRA: Probabilistic Vector-Based Random Matrix Adaptation, arXiv 2512.07703",
        "PveraConfig", low_rank(256, "rank of the random matrices"), lambda c, layers: {"r": c.r}, "Σ 2r + out", 3e-2,
        "Needs a far larger learning rate than LoRA, and its noise slows the start.",
    ),
    Row(
        "unilora", "Uni-LoRA", "All low-rank matrices are filled from one short vector, each entry used many times.",
        "Many adapters have to be kept and the smallest possible file counts more than accuracy.",
        "W′ = W + B·A,  every entry of B and A one of the vector's, chosen at random and scaled",
        "Li et al. 2025, Uni-LoRA: One Vector Is All You Need, arXiv 2506.00799", "UniLoraConfig",
        {**low_rank(4), "length": option(4096, 1, 1_000_000, help="length of the vector")},
        lambda c, layers: {"r": c.r, "theta_d_length": c.length}, "length", 1e-2,
        "All layers share each number, and its start differs a little from zero-shot.", starts_at=None,
    ),
    *WEIGHT_AWARE,
)  # fmt: skip
ROWS: Mapping[str, Row] = MappingProxyType({row.id: row for row in TABLE})
