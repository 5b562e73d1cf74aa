from __future__ import annotations

import hashlib
from pathlib import PurePath
from typing import Any, ClassVar

from django.conf import settings
from django.db import models, router, transaction
from django.utils import timezone

from core.natural_keys import NaturalKeyManager, NaturalKeyModel


class DocumentType(NaturalKeyModel):
    code = models.CharField(max_length=16, unique=True, help_text="Begins the numbers of documents of this type.")
    name = models.CharField(max_length=100)
    description = models.TextField(blank=True)
    review_months = models.PositiveSmallIntegerField(
        default=24, help_text="How long an effective document stands before it has to be reviewed."
    )

    natural_key_fields = ("code",)

    class Meta:
        ordering = ["code"]

    def __str__(self) -> str:
        return f"{self.code} {self.name}"


class NumberSequenceManager(NaturalKeyManager["NumberSequence"]):
    def next_number(self, document_type: DocumentType, year: int) -> str:
        """Return a document number that nobody else gets, because others wait until the commit."""
        with transaction.atomic(using=self.db):
            # The type's row is the lock: it is there before the year's first number, when the counter's is not.
            DocumentType.objects.using(self.db).select_for_update().get(pk=document_type.pk)
            sequence, _ = self.get_or_create(document_type=document_type, year=year)
            while True:
                sequence.last += 1
                number = f"{document_type.code}-{year}-{sequence.last:04d}"
                # A counter that was restored from a backup is behind the documents that were written since.
                if not Document.objects.using(self.db).filter(number=number).exists():
                    break
            sequence.save(using=self.db, update_fields=["last"])
        return number


class NumberSequence(NaturalKeyModel):
    """The last number given to a document of a type in a year."""

    document_type = models.ForeignKey(DocumentType, models.CASCADE, related_name="number_sequences")
    year = models.PositiveSmallIntegerField()
    last = models.PositiveIntegerField(default=0)

    objects: ClassVar[NumberSequenceManager] = NumberSequenceManager()

    natural_key_fields = ("document_type__code", "year")

    class Meta:
        ordering = ["document_type", "year"]
        constraints = [
            models.UniqueConstraint(fields=["document_type", "year"], name="numbersequence_type_year"),
        ]

    def __str__(self) -> str:
        return f"{self.document_type.code}-{self.year}: {self.last}"


class Document(NaturalKeyModel):
    class Status(models.TextChoices):
        DRAFT = "draft"
        EFFECTIVE = "effective"
        SUPERSEDED = "superseded"
        OBSOLETE = "obsolete"
        TERMINATED = "terminated"

    number = models.CharField(max_length=32, unique=True, blank=True, editable=False)
    title = models.CharField(max_length=200)
    document_type = models.ForeignKey(DocumentType, models.PROTECT, related_name="documents")
    status = models.CharField(max_length=16, choices=Status, default=Status.DRAFT, editable=False, db_index=True)
    author = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="documents")
    reviewers = models.ManyToManyField(settings.AUTH_USER_MODEL, blank=True, related_name="documents_to_review")
    supersedes = models.ForeignKey("self", models.SET_NULL, null=True, blank=True, related_name="superseded_by")
    current_version = models.ForeignKey(
        "DocumentVersion", models.SET_NULL, null=True, blank=True, editable=False, related_name="+"
    )
    effective_date = models.DateField(null=True, blank=True)
    review_date = models.DateField(null=True, blank=True)
    metadata = models.JSONField(default=dict, blank=True)
    created = models.DateTimeField(default=timezone.now, editable=False)
    modified = models.DateTimeField(auto_now=True)

    natural_key_fields = ("number",)

    class Meta:
        ordering = ["number"]

    def __str__(self) -> str:
        return f"{self.number} {self.title}"

    def save(self, *args: Any, using: str | None = None, **kwargs: Any) -> None:
        using = using or router.db_for_write(type(self), instance=self)
        with transaction.atomic(using=using):
            if not self.number:
                numbers = NumberSequence.objects.db_manager(using)
                self.number = numbers.next_number(self.document_type, self.created.year)
            super().save(*args, using=using, **kwargs)

    @property
    def latest_version(self) -> DocumentVersion | None:
        return self.versions.order_by("major", "minor").last()


def version_path(version: DocumentVersion, file_name: str) -> str:
    """Return where a version's file is stored: the directory is the version's own, and the name stays readable."""
    return f"documents/{version.document.number}/{version.label}/{PurePath(file_name).name}"


class DocumentVersion(NaturalKeyModel):
    document = models.ForeignKey(Document, models.CASCADE, related_name="versions")
    major = models.PositiveSmallIntegerField()
    minor = models.PositiveSmallIntegerField()
    file = models.FileField(upload_to=version_path, max_length=255)
    size = models.PositiveBigIntegerField(editable=False)
    sha256 = models.CharField("SHA-256", max_length=64, editable=False)
    change_summary = models.TextField(blank=True)
    author = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="document_versions")
    created = models.DateTimeField(default=timezone.now, editable=False)

    natural_key_fields = ("document__number", "major", "minor")

    class Meta:
        ordering = ["document", "-major", "-minor"]
        constraints = [
            models.UniqueConstraint(fields=["document", "major", "minor"], name="documentversion_label"),
        ]

    def __str__(self) -> str:
        return f"{self.document.number} v{self.label}"

    @property
    def label(self) -> str:
        return f"{self.major}.{self.minor}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        if self.file and not self.file._committed:  # type: ignore[attr-defined]
            self._measure()
        super().save(*args, **kwargs)

    def _measure(self) -> None:
        """Take size and hash of the upload itself: what the storage holds later is compared with them."""
        digest = hashlib.sha256()
        self.size = 0
        for chunk in self.file.chunks():
            digest.update(chunk)
            self.size += len(chunk)
        self.sha256 = digest.hexdigest()


class DocumentReference(NaturalKeyModel):
    class Kind(models.TextChoices):
        CITES = "cites"
        IMPLEMENTS = "implements"
        DERIVES_FROM = "derives_from", "derives from"
        RELATED = "related", "is related to"

    citing = models.ForeignKey(Document, models.CASCADE, related_name="references")
    cited = models.ForeignKey(Document, models.CASCADE, related_name="cited_by")
    kind = models.CharField(max_length=16, choices=Kind, default=Kind.CITES)
    note = models.CharField(max_length=200, blank=True)

    natural_key_fields = ("citing__number", "cited__number", "kind")

    class Meta:
        ordering = ["citing", "cited"]
        constraints = [
            models.UniqueConstraint(fields=["citing", "cited", "kind"], name="documentreference_pair"),
            models.CheckConstraint(
                condition=~models.Q(citing=models.F("cited")),
                name="documentreference_other",
                violation_error_message="A document does not cite itself.",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.citing.number} {self.get_kind_display()} {self.cited.number}"
