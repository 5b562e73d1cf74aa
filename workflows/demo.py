"""A small company's documents, told in order: ten users, five documents, four workflows and how they came about."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

from django.contrib.auth.models import Group
from django.core.files.base import ContentFile
from django.db import transaction

from core import audit
from core.models import User
from documents.models import Document, DocumentReference, DocumentType, DocumentVersion
from documents.services import add_version, create_document
from workflows import demo_files
from workflows.models import DocumentWorkflow, WorkflowType
from workflows.services import advance, start_workflow

BEGIN = datetime(2026, 1, 12, 8, 30, 0, 123456, tzinfo=UTC)
STEP = timedelta(days=1, hours=1, minutes=7, microseconds=1)


class Person(NamedTuple):
    username: str
    first_name: str
    last_name: str
    department: str
    job_title: str
    manager: str
    groups: Sequence[str]


PEOPLE = [
    Person("grace", "Grace", "Okonkwo", "Quality", "Head of quality", "", ["Approvers", "Quality"]),
    Person("alice", "Alice", "Archer", "Production", "Process engineer", "grace", ["Authors"]),
    Person("bob", "Bob", "Bianchi", "Production", "Production lead", "grace", ["Reviewers"]),
    Person("carol", "Carol", "Céspedes", "Production", "Plant manager", "grace", ["Approvers"]),
    Person("dan", "Dan", "Dvořák", "Quality", "Document controller", "grace", ["Authors", "Quality"]),
    Person("erin", "Erin", "Ó Briain", "Laboratory", "Analyst", "carol", ["Authors"]),
    Person("frank", "Frank", "Fußenegger", "Laboratory", "Laboratory lead", "carol", ["Reviewers"]),
    Person("heidi", "Heidi", "林", "Regulatory affairs", "Auditor", "", []),
]
PASSWORD = "correct horse battery staple"  # noqa: S105 - of demonstration data, and published in the README
PASSWORD_HASH = "pbkdf2_sha256$1000000$demonstration0only0000$xCWmO6RChFD0/X3t8Lg/7JuGxAlO/9LhTJwBFXtHT0A="  # noqa: S105
"""The hash of ``PASSWORD``, so that a restored password can be seen to work. Only alice has one."""


class Story:
    """Tells the story in one database. Every event has its time, so that each telling gives the same rows."""

    def __init__(self, using: str) -> None:
        self.using = using
        self.time = BEGIN
        self.users = {"admin": User.objects.using(using).get(username="admin")}

    def tell(self) -> None:
        with transaction.atomic(using=self.using):
            for number, person in enumerate(PEOPLE, start=1):
                self._hire(number, person)
            old = self._old_procedure()
            specification = self._specification()
            procedure = self._procedure(old)
            instruction = self._instruction()
            policy = self._policy()
            self._refer(procedure, specification, DocumentReference.Kind.CITES, "acceptance limits for rinse water")
            self._refer(specification, procedure, DocumentReference.Kind.CITES, "where the water is used")
            self._refer(procedure, old, DocumentReference.Kind.DERIVES_FROM)
            self._refer(instruction, procedure, DocumentReference.Kind.IMPLEMENTS, "§ 4.2 Probenahme")
            self._refer(policy, procedure, DocumentReference.Kind.RELATED)
            self._retire(old)
            told = [document.pk for document in (old, specification, procedure, instruction, policy)]
            # Saving set these to the time of the telling.
            Document.objects.using(self.using).filter(pk__in=told).update(modified=self.time)
            DocumentWorkflow.objects.using(self.using).filter(document__in=told).update(modified=self.time)
        audit.join(self.using)

    def _old_procedure(self) -> Document:
        """A document from before the system: effective without a workflow, until it is superseded."""
        document = self._write("SOP", "Cleaning of vessels", "alice", ["bob"], metadata={"legacy_number": "QP-17"})
        lines = ["QP-17 Cleaning of vessels", "1. Rinse with hot water.", "2. Rinse again.", "3. Sign the log."]
        version = self._upload(document, "QP-17 cleaning.pdf", demo_files.pdf(lines), "dan", "Scanned from paper")
        document.status = Document.Status.EFFECTIVE
        document.current_version = version
        document.effective_date, document.review_date = date(2024, 3, 1), date(2026, 3, 1)
        document.save(using=self.using)
        return document

    def _specification(self) -> Document:
        """Waits for its approval."""
        metadata = {"sites": ["Genève", "東京"], "gxp": True, "retention_years": 10, "training": None}
        document = self._write("SPEC", "Purified water: limits", "erin", ["frank", "bob"], metadata=metadata)
        rows = [
            ("parameter", "limit", "unit"),
            ("conductivity (25 °C)", 1.3, "µS/cm"),
            ("TOC", 500, "µg/l"),
            ("total count", 100, "cfu/ml"),
        ]
        self._upload(document, "limits.csv", demo_files.csv(rows), "erin", "First draft")
        self._upload(document, "limits.csv", demo_files.csv([*rows, ("pH", "5.0 to 7.0", "")]), "erin", "pH added")
        workflow = self._begin(document, WorkflowType.REVIEW, "erin", "carol", date(2026, 4, 15), "New specification")
        self._advance(workflow, ("erin", "submit", ""), ("frank", "review", "Agrees with Ph. Eur. 0008 ✓"))
        return document

    def _procedure(self, old: Document) -> Document:
        """Went through a review and back, became effective, and superseded the old one."""
        document = self._write("SOP", "Cleaning and release of vessels", "alice", ["bob", "frank"], supersedes=old)
        paragraphs = ["Cleaning and release of vessels", "1 Purpose", "2 Responsibilities", "3 Cleaning <hot>"]
        self._upload(document, "cleaning.docx", demo_files.docx(paragraphs), "alice", "First draft")
        workflow = self._begin(document, WorkflowType.REVIEW, "alice", "bob", date(2026, 3, 31), "CAPA 2025-118")
        self._advance(workflow, ("alice", "submit", ""), ("bob", "return", "Who releases the vessel?"))
        paragraphs.append("4 Release: quality releases the vessel, after the swab results are there.")
        workflow.version = self._upload(
            document, "cleaning.docx", demo_files.docx(paragraphs), "alice", "Release added"
        )
        workflow.save(using=self.using)
        self._advance(
            workflow,
            ("alice", "submit", "Chapter 4 is new"),
            ("frank", "review", ""),
            ("carol", "approve", ""),
            ("dan", "release", "Training is done"),
        )
        return document

    def _instruction(self) -> Document:
        """Waits for its review."""
        document = self._write("WI", "Swab sampling of surfaces", "erin", ["frank"])
        self._upload(document, "positions.png", demo_files.png(96, 64), "erin", "Positions of the swabs")
        workflow = self._begin(document, WorkflowType.REVIEW, "erin", "frank", date(2026, 4, 30), "")
        self._advance(workflow, ("erin", "submit", ""))
        return document

    def _policy(self) -> Document:
        """Nobody has submitted it yet."""
        document = self._write("POL", "Document control", "dan", ["grace"], metadata={"keywords": ["GDocP", "ALCOA+"]})
        lines = ["Document control", "", "Nobody approves what he or she wrote.", "Niemand genehmigt Eigenes. 📄"]
        self._upload(document, "policy.txt", demo_files.text(lines), "dan", "Outline")
        return document

    def _retire(self, old: Document) -> None:
        """Everybody has agreed that the old procedure goes; it has not been declared obsolete yet."""
        workflow = self._begin(old, WorkflowType.OBSOLESCENCE, "alice", "dan", date(2026, 5, 31), "Superseded")
        self._advance(workflow, ("alice", "submit", ""), ("bob", "review", ""), ("grace", "approve", ""))

    def _later(self) -> datetime:
        self.time += STEP
        return self.time

    def _hire(self, number: int, person: Person) -> None:
        user, created = User.objects.using(self.using).get_or_create(
            username=person.username,
            defaults={
                "first_name": person.first_name,
                "last_name": person.last_name,
                "email": f"{person.username}@edms.example",
                "password": PASSWORD_HASH if person.username == "alice" else f"!{person.username}",  # "!": unusable
                "is_staff": True,
                "employee_id": f"E-{number:04d}",
                "department": person.department,
                "job_title": person.job_title,
                "manager": self.users.get(person.manager),
                "date_joined": self._later(),
            },
        )
        self.users[person.username] = user
        if created:
            user.groups.set(Group.objects.using(self.using).filter(name__in=person.groups))
            details, admin = {"groups": person.groups}, self.users["admin"]
            audit.record("user.created", actor=admin, target=user, details=details, time=self.time, using=self.using)

    def _write(self, type_code: str, title: str, author: str, reviewers: list[str], **fields: Any) -> Document:
        document = create_document(
            DocumentType.objects.using(self.using).get(code=type_code),
            title,
            self.users[author],
            time=self._later(),
            **fields,
        )
        document.reviewers.set(self.users[name] for name in reviewers)
        return document

    def _upload(self, document: Document, name: str, content: bytes, author: str, summary: str) -> DocumentVersion:
        file = ContentFile(content, name=name)
        return add_version(document, file, self.users[author], change_summary=summary, time=self._later())

    def _begin(
        self, document: Document, workflow_type: WorkflowType, user: str, assignee: str, due: date, reason: str
    ) -> DocumentWorkflow:
        workflow = DocumentWorkflow(
            document=document,
            workflow_type=workflow_type,
            assignee=self.users[assignee],
            due_date=due,
            reason=reason,
        )
        start_workflow(workflow, self.users[user], time=self._later())
        return workflow

    def _advance(self, workflow: DocumentWorkflow, *steps: tuple[str, str, str]) -> None:
        for user, action, comment in steps:
            advance(workflow, action, self.users[user], comment=comment, time=self._later())

    def _refer(self, citing: Document, cited: Document, kind: DocumentReference.Kind, note: str = "") -> None:
        DocumentReference.objects.using(self.using).create(citing=citing, cited=cited, kind=kind, note=note)
