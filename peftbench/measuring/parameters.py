"""Parameter counts and shares of a method on a backbone."""

from peftbench.backbones.heads import HeadedBackbone
from peftbench.methods.base import Method


def count_parameters(method: Method, backbone: HeadedBackbone) -> dict[str, int | float]:
    """Count what trains and what the whole model holds; shapes alone are needed, so the meta device will do.

    Returns:
        method: parameters the method trains, the head left out. closed_form: the same by `Method.count`.
        head: parameters of the head. backbone: parameters of the backbone.
        total: backbone, added tensors, also those that do not train, and head; clones that stand in for backbone
            tensors count once.
        share_method: method / backbone. share_trained: (method + head) / total. Both are fractions.
    """
    trained = sum(p.numel() for p in method.parameters())
    added = trained - sum(p.numel() for p in method.replaced.parameters())
    added += sum(b.numel() for b in method.buffers())
    head = sum(p.numel() for p in backbone.head.values())
    total = backbone.size + added + head
    return {
        "method": trained,
        "closed_form": method.count(method.config, backbone.sites),
        "head": head,
        "backbone": backbone.size,
        "total": total,
        "share_method": trained / backbone.size,
        "share_trained": (trained + head) / total,
    }
