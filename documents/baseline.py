"""The document types of a freshly migrated system."""

from __future__ import annotations

from django.apps import apps as installed_apps
from django.apps.registry import Apps

from core.baseline import fill

TYPES = [
    {"code": "POL", "name": "Policy", "review_months": 36},
    {"code": "SOP", "name": "Standard operating procedure", "review_months": 24},
    {"code": "WI", "name": "Work instruction", "review_months": 24},
    {"code": "FRM", "name": "Form", "review_months": 24},
    {"code": "SPEC", "name": "Specification", "review_months": 12},
    {"code": "REP", "name": "Report", "review_months": 60},
]


def create_document_types(*, using: str, apps: Apps = installed_apps, **kwargs: object) -> None:
    fill("documents.DocumentType", TYPES, apps, using)
