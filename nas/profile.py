"""What a network costs: exact counts, fvcore's independent one, memory, measured latency."""

from __future__ import annotations

from typing import Any

from nas.model import fvcore_flops
from nas.objective import latency_ms
from search_space import Architecture, cost


def profile(architecture: Architecture) -> dict[str, Any]:
    """All figures of a network, ready for JSON.

    FLOPs are multiply-adds of convolutions and linear layers for one image, memory is in bytes of float32, latency is
    the median for one image on this machine's GPU or CPU.
    """
    import torch

    total = cost.total(architecture)
    return {
        "name": architecture.name,
        "key": architecture.key(),
        "resolution": architecture.resolution,
        "num_classes": architecture.num_classes,
        "params": total.params,
        "flops": total.flops,
        "fvcore_flops": fvcore_flops(architecture),
        "weight_bytes": total.params * cost.BYTES_PER_NUMBER,
        "activation_memory_bytes": cost.activation_memory(architecture),
        "latency_ms": round(latency_ms(architecture), 3),
        "device": "GPU" if torch.cuda.is_available() else "CPU",
        "parts": [
            {
                "name": part.name,
                "output": [part.out_shape.chs, part.out_shape.size, part.out_shape.size],
                "flops": part_cost.flops,
                "params": part_cost.params,
                "activation_memory_bytes": part_cost.peak_activations * cost.BYTES_PER_NUMBER,
            }
            for part, part_cost in cost.per_part(architecture)
        ],
    }
