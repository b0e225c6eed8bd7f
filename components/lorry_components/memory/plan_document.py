"""A plan as plain values, and its verdict on each GPU."""

from typing import Any

from lorry_components.memory.estimates import Estimate
from lorry_components.memory.gpus import DEVICES, Device
from lorry_components.memory.plan import TaskPlan


def describe_plan(plan: TaskPlan) -> dict[str, Any]:
    """Return a plan as plain values, sizes in bytes."""
    return {
        "task": plan.task,
        "method": plan.method,
        "base": plan.base,
        "parameters": {
            "adapter": plan.parameters.adapter,
            "head": plan.parameters.head,
            "trained": plan.parameters.trained,
            "total": plan.parameters.total,
        },
        "adapter_bytes": plan.adapter_bytes,
        "rows": plan.rows,
        "processes": plan.processes,
        "tokens": plan.tokens,
        **({"side": plan.side} if plan.side else {}),
        "device": plan.device,
        "precision": plan.precision,
        "training": _describe_estimate(plan.training),
        "host": _describe_estimate(plan.host) if plan.host else None,
        "inference": _describe_estimate(plan.inference),
        "on_gpu": {"precision": plan.gpu_precision, **_describe_estimate(plan.on_gpu)},
        "smallest_device": plan.smallest_device.name if plan.smallest_device else None,
        "devices": [
            {
                "name": device.name,
                "usable_bytes": device.usable,
                "verdict": judge_device(device, plan.on_gpu),
            }
            for device in DEVICES
        ],
        "advice": [
            {
                "change": advice.change,
                "saved_bytes": advice.saved,
                "needed_bytes": advice.needed,
                "smallest_device": advice.device.name if advice.device else None,
            }
            for advice in plan.advice
        ],
        "notes": list(plan.notes),
    }


def judge_device(device: Device, estimate: Estimate) -> str:
    """Return whether a GPU ``fits`` even the high end, ``may fit`` the low end, or is ``too small``."""
    if estimate.high <= device.usable:
        return "fits"
    return "may fit" if estimate.low <= device.usable else "too small"


def _describe_estimate(estimate: Estimate) -> dict[str, Any]:
    return {
        "low_bytes": estimate.low,
        "high_bytes": estimate.high,
        "parts": [
            {"name": part.name, "low_bytes": part.low, "high_bytes": part.high} for part in estimate.parts
        ],
    }
