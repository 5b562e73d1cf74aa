from django.apps import AppConfig
from django.db.models.signals import post_migrate


class DocumentsConfig(AppConfig):
    name = "documents"

    def ready(self) -> None:
        from documents import baseline

        post_migrate.connect(baseline.create_document_types, sender=self)
