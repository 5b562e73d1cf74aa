"""The state machine of a freshly migrated system."""

from __future__ import annotations

from typing import Any

from django.apps import apps as installed_apps
from django.apps.registry import Apps

from core.baseline import fill

STATES: list[dict[str, Any]] = [
    {"code": "draft", "name": "Draft", "is_initial": True},
    {"code": "in_review", "name": "In review"},
    {"code": "in_approval", "name": "In approval"},
    {"code": "approved", "name": "Approved"},
    {"code": "effective", "name": "Effective", "is_final": True},
    {"code": "obsolete", "name": "Obsolete", "is_final": True},
    {"code": "terminated", "name": "Terminated", "is_final": True},
    {"code": "cancelled", "name": "Cancelled", "is_final": True},
]

# from, action, to, permission, four eyes, meaning of the signature
_APPROVAL = [
    ("draft", "submit", "in_review", "submit", False, ""),
    ("in_review", "review", "in_approval", "review", True, "Reviewed"),
    ("in_review", "return", "draft", "review", False, ""),
    ("in_approval", "approve", "approved", "approve", True, "Approved"),
    ("in_approval", "return", "draft", "approve", False, ""),
    ("draft", "cancel", "cancelled", "cancel", False, ""),
    ("in_review", "cancel", "cancelled", "cancel", False, ""),
    ("in_approval", "cancel", "cancelled", "cancel", False, ""),
]
_LAST_STEPS = {
    "review": ("effective", "Released", "release"),
    "up_version": ("effective", "Released", "release"),
    "obsolescence": ("obsolete", "Declared obsolete", "obsolete"),
    "termination": ("terminated", "Terminated", "terminate"),
}


def _rules() -> list[dict[str, Any]]:
    rules = []
    for workflow_type, (end, meaning, effect) in _LAST_STEPS.items():
        steps = [(*step, "") for step in _APPROVAL]
        steps.append(("approved", "release", end, "release", True, meaning, effect))
        rules += [
            {
                "workflow_type": workflow_type,
                "from_state_id": from_state,
                "action": action,
                "to_state_id": to_state,
                "permission": f"workflows.{permission}_documentworkflow",
                "four_eyes": four_eyes,
                "meaning": signature,
                "effect": effect_of_step,
            }
            for from_state, action, to_state, permission, four_eyes, signature, effect_of_step in steps
        ]
    return rules


def create_state_machine(*, using: str, apps: Apps = installed_apps, **kwargs: object) -> None:
    states = [state | {"position": position} for position, state in enumerate(STATES, start=1)]
    fill("workflows.WorkflowState", states, apps, using)
    fill("workflows.WorkflowTransitionRule", _rules(), apps, using)
