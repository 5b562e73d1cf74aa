"""Large data in realistic proportions, the same each time, in bounded memory."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from django.contrib.auth.models import Group
from django.contrib.contenttypes.models import ContentType
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.core.management.color import no_style
from django.db import connections, models, transaction
from django.db.models import F, Max, OuterRef, Subquery

from core.models import AuditEvent, User
from documents.models import Document, DocumentReference, DocumentType, DocumentVersion, NumberSequence
from workflows import demo_files
from workflows.models import (
    DocumentWorkflow,
    WorkflowState,
    WorkflowTransition,
    WorkflowTransitionRule,
    WorkflowType,
)

_Row = TypeVar("_Row", bound=models.Model)

SEED = 20260112
BATCH = 1000
"""Documents that are made, and committed, together: about 8,000 rows in memory."""

# Rows among a thousand.
USERS, DOCUMENTS, VERSIONS, TRANSITIONS, REFERENCES, REVIEWERS, EVENTS = 1, 120, 250, 500, 3, 3, 3

BEGIN = datetime(2016, 1, 4, 7, 0, tzinfo=UTC)
MINUTES = 10 * 365 * 24 * 60

_WORDS = """
acceptance activity adjustment air alarm analysis approval area assessment audit authority balance batch blender
buffer calibration cell centrifuge change chromatography cleaning clearance column complaint conductivity control
cooling corrective criteria culture deviation disposal distribution dosage drying endotoxin environmental equipment
excursion expiry facility filling filter final frequency gowning granulation handling holding humidity impurity
incubator inspection intermediate inventory investigation isolator label laboratory limit line log lot lyophiliser
maintenance material media method microbial mixing monitoring operator packaging particle personnel pest pipette
potency pressure preventive process product protocol purified qualification quarantine raw reagent receipt recall
reconciliation record reference rejection release residue result retention risk room sample sampling sanitisation
shipment specification stability standard steam sterile storage supplier swab tablet tank temperature test training
transfer trend utility validation valve verification vessel viable waste water weighing Prüfung Gerät contrôle
qualité µg/ml ≤0.5 °C „ok“ 品質 試験
"""
_LAST_NAMES = """
Adams Becker Conti Duarte Eriksen Fischer Gómez Horváth Ito Jansen Kowalski Lefèvre Müller Novák Öz Rossi
"""
_FIRST_NAMES = """
Ada Ben Chloé Dmitri Elif Finn Gita Hugo Inés Jonas Keiko Lars Mei Noah Olga Piotr
"""
WORDS, LAST_NAMES, FIRST_NAMES = _WORDS.split(), _LAST_NAMES.split(), _FIRST_NAMES.split()

PATHS = {
    4: (
        "submit review approve release",
        "submit review approve release",
        "submit return submit review",
        "submit review return submit",
        "submit return submit cancel",
    ),
    5: (
        "submit return submit review approve",
        "submit review return submit review",
        "submit return submit review cancel",
    ),
}
"""Ways through the state machine, by their number of steps. All types of workflow have them."""


VALID = [Document.Status.EFFECTIVE, Document.Status.OBSOLETE]
"""Statuses of documents that have been effective."""


def generate(rows: int, using: str) -> None:
    """Add about ``rows`` rows."""
    _Generator(rows, using).run()


class _Generator:
    """Gives users, documents, versions and workflows their primary keys itself: not every engine tells them."""

    def __init__(self, rows: int, using: str) -> None:
        self.using = using
        self.random = random.Random(SEED)  # noqa: S311 - the same data each time is the point
        self.rows = rows
        self.documents = rows * DOCUMENTS // 1000
        self.types = list(DocumentType.objects.using(using))
        rules = WorkflowTransitionRule.objects.using(using).select_related("to_state")
        self.rules = {(rule.workflow_type, rule.from_state_id, rule.action): rule for rule in rules}
        self.initial = WorkflowState.objects.using(using).get(is_initial=True).code
        sequences = NumberSequence.objects.using(using)
        self.last_numbers = {(sequence.document_type_id, sequence.year): sequence.last for sequence in sequences}
        self.users: dict[int, str] = {}
        self.files: list[tuple[str, int, str]] = []
        self.newest_event = AuditEvent.objects.using(using).order_by("time", "id").last()

    def run(self) -> None:
        self.files = self._store_files()
        with transaction.atomic(using=self.using):
            self.users = self._add_users()
        for start in range(0, self.documents, BATCH):
            with transaction.atomic(using=self.using):
                self._add_batch(range(start, min(start + BATCH, self.documents)))
        connection = connections[self.using]
        with connection.cursor() as cursor:
            for sql in connection.ops.sequence_reset_sql(
                no_style(), [User, Document, DocumentVersion, DocumentWorkflow]
            ):
                cursor.execute(sql)

    def _store_files(self) -> list[tuple[str, int, str]]:
        """Store some files that all versions share, and return their names, sizes and hashes."""
        stored = []
        for number in range(16):
            content = demo_files.text([self._sentence(12) for _ in range(20 + 10 * number)])
            name = default_storage.save(f"documents/shared/{number:02d}.txt", ContentFile(content))
            stored.append((name, len(content), hashlib.sha256(content).hexdigest()))
        return stored

    def _add_users(self) -> dict[int, str]:
        """Return the names of all users that can act, by primary key."""
        groups = list(Group.objects.using(self.using).order_by("pk"))
        first = self._next_key(User)
        users = []
        for pk in range(first, first + self.rows * USERS // 1000):
            first_name, last_name = self.random.choice(FIRST_NAMES), self.random.choice(LAST_NAMES)
            user = User(
                pk=pk,
                username=f"{first_name}.{last_name}.{pk}".lower(),
                first_name=first_name,
                last_name=last_name,
                email=f"user{pk}@edms.example",
                password=f"!{pk}",  # "!": unusable
                employee_id=f"G-{pk:06d}",
                department=self._sentence(1),
                job_title=self._sentence(2),
                manager_id=first if pk > first else None,
                date_joined=BEGIN,
            )
            users.append(user)
        self._insert(users)
        self._insert([User.groups.through(user_id=user.pk, group=self.random.choice(groups)) for user in users])
        active = User.objects.using(self.using).filter(is_active=True).order_by("pk")
        return {user.pk: user.get_full_name() or user.get_username() for user in active}

    def _add_batch(self, numbers: Sequence[int]) -> None:
        documents: list[Document] = []
        versions: list[DocumentVersion] = []
        workflows: list[DocumentWorkflow] = []
        transitions: list[WorkflowTransition] = []
        keys = [self._next_key(model) for model in (Document, DocumentVersion, DocumentWorkflow)]
        people = list(self.users)
        for number in numbers:
            document = self._document(keys[0] + len(documents), number, people)
            documents.append(document)
            for minor in range(_share(number, VERSIONS)):
                versions.append(self._version(keys[1] + len(versions), document, minor))
            workflow = self._workflow(keys[2] + len(workflows), document, versions[-1], people)
            workflows.append(workflow)
            transitions += self._transitions(workflow, _share(number, TRANSITIONS), people)
            document.status = _status(workflow)
            if document.status in VALID:
                document.effective_date = workflow.created.date() + timedelta(days=30)
                document.review_date = document.effective_date + timedelta(days=730)
        self._insert(documents)
        self._insert(versions)
        self._insert(workflows)
        self._insert(transitions)
        self._insert(self._references(numbers, documents))
        chosen = [document for number, document in zip(numbers, documents, strict=True) if _share(number, REVIEWERS)]
        through = Document.reviewers.through
        self._insert([through(document=document, user_id=self.random.choice(people)) for document in chosen])
        chosen = [document for number, document in zip(numbers, documents, strict=True) if _share(number, EVENTS)]
        self._insert([self._event(document) for document in chosen])
        self._finish(documents, workflows)

    def _document(self, pk: int, number: int, people: Sequence[int]) -> Document:
        created = BEGIN + timedelta(
            minutes=MINUTES * number / self.documents, microseconds=self.random.randrange(10**6)
        )
        document_type = self.random.choice(self.types)
        counter = document_type.pk, created.year
        self.last_numbers[counter] = self.last_numbers.get(counter, 0) + 1
        return Document(
            pk=pk,
            number=f"{document_type.code}-{created.year}-{self.last_numbers[counter]:04d}",
            title=self._sentence(self.random.randint(2, 7)).capitalize(),
            document_type=document_type,
            author_id=self.random.choice(people),
            metadata={"keywords": self.random.choices(WORDS, k=3), "gxp": self.random.random() < 0.8},
            created=created,
        )

    def _version(self, pk: int, document: Document, minor: int) -> DocumentVersion:
        name, size, sha256 = self.random.choice(self.files)
        return DocumentVersion(
            pk=pk,
            document_id=document.pk,
            major=1,
            minor=minor,
            file=name,
            size=size,
            sha256=sha256,
            change_summary=self._sentence(self.random.randint(3, 12)),
            author_id=document.author_id,
            created=document.created + timedelta(hours=minor),
        )

    def _workflow(
        self, pk: int, document: Document, version: DocumentVersion, people: Sequence[int]
    ) -> DocumentWorkflow:
        created = version.created + timedelta(hours=1)
        return DocumentWorkflow(
            pk=pk,
            document_id=document.pk,
            workflow_type=self.random.choices(list(WorkflowType), weights=(70, 20, 8, 2))[0],
            sequence=1,
            version_id=version.pk,
            state_id=self.initial,
            initiator_id=document.author_id,
            assignee_id=self.random.choice(people),
            due_date=created.date() + timedelta(days=self.random.randint(5, 60)),
            reason=self._sentence(6),
            created=created,
        )

    def _transitions(
        self, workflow: DocumentWorkflow, steps: int, people: Sequence[int]
    ) -> Iterator[WorkflowTransition]:
        """Walk through the state machine, and leave the workflow where that ends."""
        time = workflow.created
        for sequence, action in enumerate(self.random.choice(PATHS[steps]).split(), start=1):
            rule = self.rules[workflow.workflow_type, workflow.state_id, action]
            actor = workflow.initiator_id
            while rule.four_eyes and actor == workflow.initiator_id:
                actor = self.random.choice(people)
            time += timedelta(minutes=self.random.randint(5, 10_000))
            yield WorkflowTransition(
                workflow_id=workflow.pk,
                sequence=sequence,
                action=action,
                from_state_id=rule.from_state_id,
                to_state_id=rule.to_state_id,
                actor_id=actor,
                actor_name=self.users[actor],
                time=time,
                meaning=rule.meaning,
                comment=self._sentence(self.random.randint(0, 10)),
            )
            workflow.state = rule.to_state

    def _references(self, numbers: Sequence[int], documents: Sequence[Document]) -> list[DocumentReference]:
        """Let some documents and the ones before them cite each other."""
        pairs = [
            (documents[index - 1], document)
            for index, (number, document) in enumerate(zip(numbers, documents, strict=True))
            if index and _share(number, REFERENCES)
        ]
        return [DocumentReference(citing=citing, cited=cited, note=self._sentence(4)) for citing, cited in pairs]

    def _event(self, document: Document) -> AuditEvent:
        newest = self.newest_event
        event = AuditEvent(
            previous=[newest.hash] if newest else [],
            time=newest.time + timedelta(seconds=1) if newest else BEGIN,
            actor_name="system",
            action="document.imported",
            object_type="documents.document",
            object_key=[document.number],
            content_type=ContentType.objects.db_manager(self.using).get_for_model(document),
            object_id=str(document.pk),
        )
        event.hash = event.digest()
        self.newest_event = event
        return event

    def _finish(self, documents: Sequence[Document], workflows: Sequence[DocumentWorkflow]) -> None:
        """Set what has to wait until the rows are there, and the counters."""
        added = Document.objects.using(self.using).filter(pk__gte=documents[0].pk)
        added.update(modified=F("created"))  # saving set it to now
        started = DocumentWorkflow.objects.using(self.using).filter(pk__gte=workflows[0].pk)
        started.update(modified=F("created"))
        newest = DocumentVersion.objects.using(self.using).filter(document=OuterRef("pk")).order_by("-pk")
        added.filter(status__in=VALID).update(current_version=Subquery(newest.values("pk")[:1]))
        for (type_id, year), last in self.last_numbers.items():
            NumberSequence.objects.using(self.using).update_or_create(
                document_type_id=type_id, year=year, defaults={"last": last}
            )

    def _sentence(self, words: int) -> str:
        return " ".join(self.random.choices(WORDS, k=words))

    def _insert(self, rows: list[_Row]) -> None:
        if rows:
            type(rows[0])._default_manager.using(self.using).bulk_create(rows)

    def _next_key(self, model: type[models.Model]) -> int:
        largest = model._default_manager.using(self.using).aggregate(largest=Max("pk"))["largest"]
        return (largest or 0) + 1


def _share(number: int, rows: int) -> int:
    """Return how many of ``rows`` rows, spread evenly over ``DOCUMENTS`` documents, the document of a number has."""
    return (number + 1) * rows // DOCUMENTS - number * rows // DOCUMENTS


def _status(workflow: DocumentWorkflow) -> Document.Status:
    """Return the status of a document whose only workflow has come this far."""
    if workflow.workflow_type == WorkflowType.UP_VERSION:
        return Document.Status.EFFECTIVE
    if workflow.workflow_type == WorkflowType.OBSOLESCENCE:
        return Document.Status.OBSOLETE if workflow.state_id == "obsolete" else Document.Status.EFFECTIVE
    if workflow.workflow_type == WorkflowType.TERMINATION:
        return Document.Status.TERMINATED if workflow.state_id == "terminated" else Document.Status.DRAFT
    return Document.Status.EFFECTIVE if workflow.state_id == "effective" else Document.Status.DRAFT
