from __future__ import annotations

import pytest
from django.apps import apps
from django.core import serializers
from django.db.models import Model
from model_bakery import baker

from core.models import User
from core.natural_keys import NaturalKeyManager, NaturalKeyModel
from documents.models import Document, DocumentReference, DocumentType
from workflows.models import DocumentWorkflow, WorkflowState, WorkflowTransition, WorkflowTransitionRule

pytestmark = pytest.mark.django_db

OURS = [model for label in ("core", "documents", "workflows") for model in apps.get_app_config(label).get_models()]


def make_transition() -> WorkflowTransition:
    document = baker.make(Document)
    workflow = baker.make(DocumentWorkflow, document=document, workflow_type="review", sequence=2, state_id="draft")
    return baker.make(WorkflowTransition, workflow=workflow, sequence=7, from_state_id="draft", to_state_id="in_review")


def test_key_follows_relations() -> None:
    transition = make_transition()
    assert transition.natural_key() == (transition.workflow.document.number, "review", 2, 7)


def test_manager_finds_row_by_its_key() -> None:
    transition = make_transition()
    make_transition()
    assert WorkflowTransition.objects.get_by_natural_key(*transition.natural_key()) == transition


def test_manager_refuses_key_of_wrong_length() -> None:
    with pytest.raises(ValueError, match="zip"):
        Document.objects.get_by_natural_key("SOP-2026-0001", 1)


def test_user_keeps_key_and_manager() -> None:
    user = User.objects.create_user("nina", password="secret enough")
    assert user.natural_key() == ("nina",)
    assert User.objects.get_by_natural_key("nina") == user


@pytest.mark.parametrize(
    ("model", "dependencies"),
    [
        (User, []),
        (Document, []),
        (DocumentReference, ["documents.document"]),
        (WorkflowTransitionRule, ["workflows.workflowstate"]),
        (WorkflowTransition, ["workflows.documentworkflow", "documents.document"]),
    ],
)
def test_dependencies_are_what_the_paths_traverse(model: type[NaturalKeyModel], dependencies: list[str]) -> None:
    assert model.natural_key.dependencies == dependencies


def test_dependencies_survive_django_appending_to_them() -> None:
    DocumentReference.natural_key.dependencies.append("core.user")
    assert DocumentReference.natural_key.dependencies == ["documents.document"]


@pytest.mark.parametrize("model", [model for model in OURS if model is not WorkflowState])
def test_key_is_unique_and_never_null(model: type[Model]) -> None:
    assert issubclass(model, NaturalKeyModel)
    heads = [path.split("__")[0] for path in model.natural_key_fields]
    fields = [model._meta.get_field(name) for name in dict.fromkeys(heads)]
    assert not any(field.null for field in fields)
    constraints = [set(constraint.fields) for constraint in model._meta.total_unique_constraints]
    assert {field.name for field in fields} in constraints or (len(fields) == 1 and fields[0].unique)
    assert model is User or isinstance(model._default_manager, NaturalKeyManager)


def test_state_is_known_by_its_primary_key() -> None:
    """A natural key that is the primary key would vanish from fixtures dumped with --natural-primary."""
    assert WorkflowState._meta.pk.name == "code"
    assert not hasattr(WorkflowState, "natural_key")


def test_references_survive_new_primary_keys() -> None:
    citing, cited = baker.make(Document, _quantity=2)
    baker.make(DocumentReference, citing=citing, cited=cited)
    dumped = serializers.serialize(
        "json",
        [*DocumentType.objects.all(), *User.objects.all(), *Document.objects.all(), *DocumentReference.objects.all()],
        use_natural_foreign_keys=True,
        use_natural_primary_keys=True,
    )
    DocumentReference.objects.all().delete()
    Document.objects.all().delete()
    for row in serializers.deserialize("json", dumped):
        row.save()
    reference = DocumentReference.objects.get()
    assert (reference.citing.number, reference.cited.number) == (citing.number, cited.number)
    assert reference.citing.pk != citing.pk
