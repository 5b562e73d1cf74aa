"""Books and who wrote them: no natural keys, and what the installed apps bring to a model."""

from django.contrib.auth.models import User
from django.db import models
from simple_history.models import HistoricalRecords
from taggit.managers import TaggableManager


class Author(models.Model):
    name = models.CharField(max_length=100, unique=True)
    history = HistoricalRecords()


class Genre(models.Model):
    name = models.CharField(max_length=100, unique=True)


class Book(models.Model):
    isbn = models.CharField(max_length=20, unique=True)
    title = models.CharField(max_length=200)
    author = models.ForeignKey(Author, models.PROTECT)
    genres = models.ManyToManyField(Genre)
    lent_to = models.ForeignKey(User, models.SET_NULL, null=True)
    cover = models.FileField(upload_to="covers")
    added = models.DateTimeField(auto_now_add=True)
    history = HistoricalRecords(m2m_fields=[genres])
    tags = TaggableManager()
