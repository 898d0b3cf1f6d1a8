"""SmolLM2-135M as ONNX, from its GGUF, through transformers and `torch.onnx.export`.

Inputs input_ids and attention_mask, int64 [batch, sequence]; output logits, float32
[batch, sequence, 49152]. There is no KV cache.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import onnxq


def read(gguf: Path) -> Any:  # noqa: ANN401
    """The model in the file `gguf`, a torch module in float32.

    Raises:
        ImportError: The extra `samples-torch` is not installed.
    """
    try:
        import torch  # noqa: PLC0415
        from transformers import AutoModelForCausalLM  # noqa: PLC0415
    except ImportError as failure:
        raise ImportError(
            "SmolLM2 is read with torch: pip install 'onnxq[samples-torch]'"
        ) from failure
    return AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32, attn_implementation="eager"
    )


def make(gguf: Path, target: Path) -> None:
    """Export the model in the file `gguf` to `target`.

    Raises:
        ImportError: See `read`.
    """
    model = read(gguf)
    import torch  # noqa: PLC0415

    class Logits(torch.nn.Module):
        """The model with tensors in and a tensor out."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:  # noqa: ANN401
            found = self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
            return found.logits

    ids = torch.ones((2, 16), dtype=torch.int64)
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence")}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "# The axis name")  # both inputs have these axes
        program = torch.onnx.export(
            Logits().eval(),
            (ids, torch.ones_like(ids)),
            dynamo=True,
            input_names=["input_ids", "attention_mask"],
            output_names=["logits"],
            dynamic_shapes={"input_ids": axes, "attention_mask": axes},
            verbose=False,
        )
    assert program is not None
    onnxq.save(program.model, target)
