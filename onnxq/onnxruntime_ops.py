"""The ops of ONNX Runtime's own (com.microsoft): the release that brought each, and its parts.

Read from the schemas of the CPU packages of 1.17 to 1.32. What is not listed was there in 1.17.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

Version: TypeAlias = tuple[int, int]

OLDEST: Version = (1, 17)  # no older release was read
NEWEST: Version = (1, 32)  # nor a newer one

_OPS: Mapping[Version, tuple[str, ...]] = {
    (1, 18): ("GemmaRotaryEmbedding", "QMoE", "SparseAttention"),
    (1, 20): ("GatherBlockQuantized",),
    (1, 23): ("PagedAttention",),
    (1, 25): ("CausalConvWithState", "LinearAttention"),
    (1, 27): ("MatMulNBitsMlp", "MatMulNBitsQkv"),
    (1, 29): (
        *("GatedAdd", "GatedRMSNorm", "LinearAttentionGate", "MRotaryEmbedding"),
        *("MatMulBlockQuantizedFp4Weight", "MatMulBlockQuantizedFp8Weight"),
    ),
    (1, 30): ("EngramGate", "GatedDeltaNet", "NGramHashMapping", "VarlenCausalConvWithState"),
    (1, 31): (
        *("BranchwiseRMSNorm", "DynamicSparseAttention", "HyperConnectionPostMix"),
        *("HyperConnectionPreMix", "PackedSparseAttentionIndexer", "ScaledSiLU"),
        *("SparseAttentionIndexer", "SparsePagedAttention", "VarlenNGramHashMapping"),
    ),
    (1, 32): (
        *("ConvStateReplay", "GatedDeltaNetStateReplay", "GatherPacked", "Mamba2Verify"),
        *("HyperConnectionLowRankMix", "MatMulNBitsQLoRA", "MatMulPacked", "MoEGroupRouter"),
        *("MoEPacked", "PackedSparseAttentionIndexerMerge", "RMSNormRotary", "RouterGateUpProj"),
        *("SpeculativePrefixCommit", "SwiGLU"),
    ),
}

_ATTRIBUTES: Mapping[Version, Mapping[str, tuple[str, ...]]] = {
    (1, 18): {"MoE": ("normalize_routing_weights",)},
    (1, 19): {
        "GroupQueryAttention": ("smooth_softmax",),
        "MoE": ("use_sparse_mixer",),
        "QMoE": ("expert_weight_bits", "use_sparse_mixer"),
        "RotaryEmbedding": ("is_packed_batching",),
    },
    (1, 20): {"GroupQueryAttention": ("softcap",)},
    (1, 23): {
        "GatherBlockQuantized": ("bits",),
        "GroupQueryAttention": ("qk_output",),
        "MoE": ("activation_alpha", "activation_beta", "swiglu_fusion", "swiglu_limit"),
        "QMoE": (
            *("activation_alpha", "activation_beta", "block_size"),
            *("swiglu_fusion", "swiglu_limit"),
        ),
    },
    (1, 25): {"GroupQueryAttention": ("k_quant_type", "kv_cache_bit_width", "v_quant_type")},
    (1, 27): {"QMoE": ("quant_type",)},
    (1, 28): {
        "GroupQueryAttention": ("qk_norm_epsilon",),
        "MatMulNBits": ("weight_prepacked",),
        "QMoE": ("weights_prepacked",),
    },
    (1, 29): {
        "CausalConvWithState": ("state_window",),
        "GroupQueryAttention": ("sliding_window_cache",),
        "LinearAttention": ("state_window",),
        "PagedAttention": (
            *("k_cache_dtype", "k_quant_type", "kv_cache_layout", "qk_norm_epsilon"),
            *("rotary_offset", "v_cache_dtype", "v_head_size", "v_quant_type"),
        ),
    },
    (1, 30): {
        "CausalConvWithState": ("channels_last", "dilation"),
        "GroupQueryAttention": ("causal",),
        "PagedAttention": ("is_causal",),
    },
    (1, 31): {
        "GatedRMSNorm": ("activation",),
        "NGramHashMapping": ("reset_on_eos",),
        "QMoE": (
            *("accuracy_level", "fc1_expert_weight_bits", "fc2_expert_weight_bits"),
            "fc3_expert_weight_bits",
        ),
    },
    (1, 32): {
        "CausalConvWithState": (
            *("input_channel_offset", "input_channels", "state_channels_last", "state_length"),
            "state_update_capacity",
        ),
        "DynamicSparseAttention": ("output_bf16",),
        "GatedDeltaNet": ("gate_lower_bound",),
        "GroupQueryAttention": ("k_norm_epsilon", "q_norm_epsilon"),
        "MoE": ("swiglu_limit_after_activation",),
        "PackedSparseAttentionIndexer": ("indexshare_state_policy", "max_output_entries"),
        "QMoE": ("swiglu_limit_after_activation",),
        "VarlenCausalConvWithState": ("delta_offset", "group_size"),
    },
}

OPS = {name: version for version, names in _OPS.items() for name in names}
ATTRIBUTES = {
    (op, attribute): version
    for version, by_op in _ATTRIBUTES.items()
    for op, attributes in by_op.items()
    for attribute in attributes
}
# The number of inputs from which on a release is needed.
INPUTS: Mapping[str, Mapping[int, Version]] = {
    "DynamicSparseAttention": {18: (1, 32)},
    "EngramGate": {6: (1, 31)},
    "GatedAdd": {4: (1, 32)},
    "GroupQueryAttention": {10: (1, 22), 12: (1, 23), 13: (1, 25), 15: (1, 28), 17: (1, 32)},
    "MatMulNBits": {5: (1, 18), 6: (1, 19)},
    "MoE": {7: (1, 18)},
    "MultiHeadAttention": {9: (1, 22)},
    "NGramHashMapping": {5: (1, 31)},
    "PackedSparseAttentionIndexer": {19: (1, 32)},
    "PagedAttention": {11: (1, 29)},
    "QMoE": {12: (1, 24), 15: (1, 25), 16: (1, 27)},
    "VarlenCausalConvWithState": {7: (1, 32)},
    "WhisperBeamSearch": {15: (1, 18)},
}
