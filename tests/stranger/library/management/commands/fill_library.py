"""Fills the library and every app that came with it. ``--again`` adds other rows of the same kinds."""

from __future__ import annotations

from argparse import ArgumentParser
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from django.contrib.auth.models import Group, User
from django.contrib.flatpages.models import FlatPage
from django.contrib.redirects.models import Redirect
from django.contrib.sites.models import Site
from django.core.files.base import ContentFile
from django.core.management.base import BaseCommand
from django_celery_beat.models import ClockedSchedule, CrontabSchedule, IntervalSchedule, PeriodicTask, SolarSchedule
from guardian.shortcuts import assign_perm
from rest_framework.authtoken.models import Token

from tests.stranger.library.models import Author, Book, Genre


class Command(BaseCommand):
    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--again", action="store_true")

    def handle(self, **options: Any) -> None:
        prefix = "other" if options["again"] else ""
        users = [User.objects.create_user(f"{prefix}{name}", password="pass") for name in ("alice", "bob", "cyd")]
        readers = Group.objects.create(name=f"{prefix}readers")
        users[0].groups.add(readers)
        self._library(prefix, users, readers)
        self._pages(prefix)
        if not prefix:
            self._schedules()
        for user in users[1:]:
            Token.objects.create(user=user)

    def _library(self, prefix: str, users: list[User], readers: Group) -> None:
        genres = [Genre.objects.create(name=f"{prefix}{name}") for name in ("crime", "poetry")]
        for number, name in enumerate(("Woolf", "Brontë", "Austen")):
            author = Author.objects.create(name=f"{prefix}{name}")
            book = Book(isbn=f"{prefix}978-{number}", title="draft", author=author, lent_to=users[number])
            book.cover.save(f"{prefix}{number}.png", ContentFile(f"cover {prefix}{number}".encode()))
            book.genres.add(*genres[: number + 1])
            book.title = f"{prefix}By {name}"
            book.save()
            book.tags.add(f"{prefix}shared", f"{prefix}tag {number}")
            assign_perm("library.change_book", users[number], book)
            assign_perm("library.view_book", readers, book)
        if not prefix:
            Author.objects.create(name="gone").delete()  # its history stays

    def _pages(self, prefix: str) -> None:
        site = Site.objects.create(domain=f"{prefix}library.example", name="Library")
        Site.objects.filter(domain="example.com").update(name="An example")
        page = FlatPage.objects.create(url="/about/", title=f"{prefix}About", content="<p>Über uns</p>")
        page.sites.add(site)
        for path in ("/old/", "/older/"):
            Redirect.objects.create(site=site, old_path=path, new_path="/about/")

    def _schedules(self) -> None:
        interval = IntervalSchedule.objects.create(every=5, period=IntervalSchedule.MINUTES)
        crontab = CrontabSchedule.objects.create(minute="30", hour="*/2", timezone=ZoneInfo("Europe/Zurich"))
        solar = SolarSchedule.objects.create(event="sunset", latitude="47.376900", longitude="8.541700")
        clocked = ClockedSchedule.objects.create(clocked_time=datetime(2030, 1, 2, 3, 4, 5, 678901, UTC))
        PeriodicTask.objects.create(name="by interval", task="library.remind", interval=interval, kwargs='{"a": 1}')
        PeriodicTask.objects.create(name="by crontab", task="library.remind", crontab=crontab)
        PeriodicTask.objects.create(name="by the sun", task="library.remind", solar=solar)
        PeriodicTask.objects.create(name="by the clock", task="library.remind", clocked=clocked, one_off=True)
