from __future__ import annotations

from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.models import Permission
from django.db.models import QuerySet

from core.models import User


class Backend(ModelBackend):
    """Django's backend, asking the database that a user came from for the permissions, not always the default one."""

    def _get_group_permissions(self, user_obj: User) -> QuerySet[Permission]:
        return Permission.objects.using(user_obj._state.db).filter(group__in=user_obj.groups.all())
