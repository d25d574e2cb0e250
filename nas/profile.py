"""What a network costs: exact counts, fvcore's independent one, memory, measured latency."""

from __future__ import annotations

from typing import Any

from nas.costs import latency_ms
from nas.limits import check_inference
from nas.model import fvcore_flops
from search_space import Architecture, cost
from search_space.memory import inference_peaks

TRAINING_BATCH = 32
OPTIMIZER = "rmsprop"


def profile(architecture: Architecture) -> dict[str, Any]:
    """All figures of a network, ready for JSON.

    FLOPs are multiply-adds of convolutions and linear layers for one image, memory is estimated peak bytes in
    float32 for one image or a training step, latency is the median for one image on this machine's GPU or CPU.

    Raises:
        InputError: the network is too large for this machine's memory.
    """
    import torch

    check_inference(architecture)
    total = cost.total(architecture)
    peaks = [peak * cost.BYTES_PER_NUMBER for peak in inference_peaks(architecture, batch_size=1)]
    return {
        "name": architecture.name,
        "key": architecture.key(),
        "resolution": architecture.resolution,
        "num_classes": architecture.num_classes,
        "params": total.params,
        "flops": total.flops,
        "fvcore_flops": fvcore_flops(architecture),
        "weight_bytes": cost.weight_memory(architecture),
        "activation_memory_bytes": max(peaks),
        "inference_memory_bytes": cost.inference_memory(architecture),
        "training_memory_bytes": cost.training_memory(architecture, TRAINING_BATCH, OPTIMIZER),
        "training": {"batch_size": TRAINING_BATCH, "optimizer": OPTIMIZER},
        "latency_ms": round(latency_ms(architecture), 3),
        "device": "GPU" if torch.cuda.is_available() else "CPU",
        "parts": [
            {
                "name": part.name,
                "output": [part.out_shape.chs, part.out_shape.size, part.out_shape.size],
                "flops": part_cost.flops,
                "params": part_cost.params,
                "activation_memory_bytes": peak,
            }
            for (part, part_cost), peak in zip(cost.per_part(architecture), peaks, strict=True)
        ],
    }
