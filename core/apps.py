from django.apps import AppConfig
from django.db.models.signals import post_migrate


class CoreConfig(AppConfig):
    name = "core"

    def ready(self) -> None:
        from core import audit, baseline

        audit.connect()
        post_migrate.connect(baseline.create_users, sender=self)
        post_migrate.connect(baseline.create_groups)
