"""Models of every awkward kind that Django allows. They are installed by tests alone."""

from __future__ import annotations

import uuid
from decimal import Decimal

from django.contrib.contenttypes.fields import GenericForeignKey, GenericRelation
from django.contrib.contenttypes.models import ContentType
from django.core.serializers.json import DjangoJSONEncoder
from django.db import models
from django.db.models.functions import Lower, Upper

from core.natural_keys import NaturalKeyModel
from tests.awkward.fields import PointField, ScrambledField, SealedJSONField


class Value(models.Model):
    """Every kind of column. Each row fills the columns that it is about."""

    name = models.CharField(max_length=100, unique=True)
    moment = models.DateTimeField(null=True)
    day = models.DateField(null=True)
    time = models.TimeField(null=True)
    duration = models.DurationField(null=True)
    decimal = models.DecimalField(max_digits=40, decimal_places=12, null=True)
    real = models.FloatField(null=True)
    big = models.BigIntegerField(null=True)
    small = models.SmallIntegerField(null=True)
    positive = models.PositiveBigIntegerField(null=True)
    flag = models.BooleanField(null=True)
    binary = models.BinaryField(null=True)
    uuid = models.UUIDField(null=True)
    address = models.GenericIPAddressField(null=True)
    json = models.JSONField(null=True)
    required_json = models.JSONField(default=dict)
    char = models.CharField(max_length=200, null=True)
    text = models.TextField(null=True)
    file = models.FileField(null=True, upload_to="awkward", max_length=250)
    image = models.ImageField(null=True, upload_to="awkward", max_length=250)
    secret = models.CharField(max_length=50, null=True, serialize=False)
    locked = models.CharField(max_length=50, null=True, editable=False)
    scrambled = ScrambledField(null=True)
    point = PointField(null=True)
    sealed = SealedJSONField(null=True, encoder=DjangoJSONEncoder)
    stamped = models.DateTimeField(auto_now=True)
    first = models.DateTimeField(auto_now_add=True)
    upper = models.GeneratedField(
        expression=Upper("name"), output_field=models.CharField(max_length=100), db_persist=True
    )
    defaulted = models.IntegerField(db_default=42)
    renamed = models.IntegerField(default=0, db_column="Order by; a name")


class Moment(models.Model):
    """Unique times that differ in microseconds alone."""

    at = models.DateTimeField(unique=True)


# Primary keys


class UuidKey(NaturalKeyModel):
    """A UUID as primary key beside another natural key."""

    natural_key_fields = ("name",)
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    name = models.CharField(max_length=50, unique=True)
    parent = models.ForeignKey("self", models.CASCADE, null=True)


class CodeKey(NaturalKeyModel):
    """A primary key that is the natural key."""

    natural_key_fields = ("code",)
    code = models.CharField(max_length=50, primary_key=True)
    title = models.CharField(max_length=50)


class TextKey(models.Model):
    code = models.CharField(max_length=50, primary_key=True)
    code_key = models.ForeignKey(CodeKey, models.CASCADE, null=True)


class BigKey(models.Model):
    id = models.BigAutoField(primary_key=True)
    uuid_key = models.ForeignKey(UuidKey, models.CASCADE, null=True)


class HugeKey(models.Model):
    """64 bits where the engine has integers without a sign."""

    number = models.PositiveBigIntegerField(primary_key=True)
    note = models.CharField(max_length=50)


class LinkedKey(models.Model):
    """A one-to-one as primary key."""

    one = models.OneToOneField("OneKey", models.CASCADE, primary_key=True)
    note = models.CharField(max_length=50)


class LinkedTwice(models.Model):
    """A one-to-one as primary key to a model whose primary key is one."""

    linked = models.OneToOneField(LinkedKey, models.CASCADE, primary_key=True)


class CompositeKey(models.Model):
    pk = models.CompositePrimaryKey("tenant", "number")
    tenant = models.IntegerField()
    number = models.CharField(max_length=20)
    note = models.CharField(max_length=50)


# Natural keys


class OneKey(NaturalKeyModel):
    natural_key_fields = ("name",)
    name = models.CharField(max_length=50, unique=True)


class SeveralKeys(NaturalKeyModel):
    natural_key_fields = ("one__name", "number")
    one = models.ForeignKey(OneKey, models.CASCADE)
    number = models.IntegerField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["one", "number"], name="several_keys")]


class TwoLevels(NaturalKeyModel):
    natural_key_fields = ("several__one__name", "several__number", "day")
    several = models.ForeignKey(SeveralKeys, models.CASCADE)
    day = models.DateField()

    class Meta:
        unique_together = [("several", "day")]


class HandWrittenManager(models.Manager["HandWritten"]):
    def get_by_natural_key(self, name: str, *rest: str) -> HandWritten:
        return self.get(name=name.lower())


class HandWritten(models.Model):
    """A natural key that only its method knows."""

    name = models.CharField(max_length=50, unique=True)
    objects = HandWrittenManager()

    def natural_key(self) -> tuple[str, Decimal]:
        return self.name.upper(), Decimal("1.50")


class RefersToHandWritten(models.Model):
    to = models.OneToOneField(HandWritten, models.CASCADE)


class UniqueOnly(models.Model):
    """No natural key, and a unique field that refers to one."""

    several = models.OneToOneField(SeveralKeys, models.CASCADE)
    note = models.CharField(max_length=50)


class Nothing(models.Model):
    """Nothing that makes a row the same thing elsewhere but its primary key."""

    note = models.CharField(max_length=50)


class TwinManager(models.Manager["Twin"]):
    def get_by_natural_key(self, name: str) -> Twin | None:
        return self.filter(name=name).first()


class Twin(models.Model):
    """A natural key that no constraint keeps unique: two rows may have the same."""

    name = models.CharField(max_length=50)
    number = models.IntegerField()
    objects = TwinManager()

    def natural_key(self) -> tuple[str, ...]:
        return (self.name,)


class RefersToTwin(models.Model):
    name = models.CharField(max_length=50, unique=True)
    twin = models.ForeignKey(Twin, models.CASCADE)


class MaybeUnique(models.Model):
    """A unique column that may be null, and is no identity."""

    number = models.IntegerField(null=True, unique=True)
    note = models.CharField(max_length=50)


class Nullable(models.Model):
    """Kinds of values that every database writes into a line itself, and each may be null."""

    name = models.CharField(max_length=50, unique=True)
    number = models.IntegerField(null=True)
    large = models.BigIntegerField(null=True)
    flag = models.BooleanField(null=True)
    text = models.TextField(null=True)
    day = models.DateField(null=True)
    at = models.DateTimeField(null=True)
    nothing = models.ForeignKey(Nothing, models.CASCADE, null=True)
    one = models.ForeignKey(OneKey, models.CASCADE, null=True)


# Relations


class Ring(NaturalKeyModel):
    """A required reference to its own kind: only cycles can exist."""

    natural_key_fields = ("name",)
    name = models.CharField(max_length=50, unique=True)
    next = models.ForeignKey("self", models.CASCADE)


class Left(NaturalKeyModel):
    natural_key_fields = ("name",)
    name = models.CharField(max_length=50, unique=True)
    right = models.ForeignKey("Right", models.CASCADE)


class Right(NaturalKeyModel):
    natural_key_fields = ("name",)
    name = models.CharField(max_length=50, unique=True)
    left = models.ForeignKey(Left, models.CASCADE)


class Friend(NaturalKeyModel):
    natural_key_fields = ("name",)
    name = models.CharField(max_length=50, unique=True)
    friends = models.ManyToManyField("self")
    follows = models.ManyToManyField("self", symmetrical=False, related_name="followers")
    liked = models.ManyToManyField(OneKey)
    ranked = models.ManyToManyField(OneKey, through="Ranking", related_name="+")


class Ranking(models.Model):
    friend = models.ForeignKey(Friend, models.CASCADE)
    one = models.ForeignKey(OneKey, models.CASCADE)
    rank = models.IntegerField()


class Isbn(models.Model):
    number = models.CharField(max_length=20, unique=True)


class ByIsbn(models.Model):
    """A foreign key to another column than the primary key."""

    isbn = models.ForeignKey(Isbn, models.CASCADE, to_field="number")
    page = models.IntegerField()


class Place(NaturalKeyModel):
    natural_key_fields = ("name",)
    name = models.CharField(max_length=50, unique=True)


class Restaurant(Place):
    stars = models.IntegerField()


class Pizzeria(Restaurant):
    oven = models.CharField(max_length=50)
    rival = models.ForeignKey(Restaurant, models.SET_NULL, null=True, related_name="+")


class PlaceProxy(Place):
    class Meta:
        proxy = True


class RefersToPlace(models.Model):
    place = models.ForeignKey(PlaceProxy, models.CASCADE)
    pizzeria = models.ForeignKey(Pizzeria, models.CASCADE, null=True)


class Tag(models.Model):
    """Generic foreign keys, with the object's key as a number and as text."""

    name = models.CharField(max_length=50)
    content_type = models.ForeignKey(ContentType, models.CASCADE, null=True, related_name="+")
    object_id = models.PositiveBigIntegerField(null=True)
    target = GenericForeignKey()
    text_type = models.ForeignKey(ContentType, models.CASCADE, null=True, related_name="+")
    text_id = models.CharField(max_length=100, null=True)
    text_target = GenericForeignKey("text_type", "text_id")


class Tagged(NaturalKeyModel):
    natural_key_fields = ("name",)
    name = models.CharField(max_length=50, unique=True)
    tags = GenericRelation(Tag)


class VisibleManager(models.Manager["Hidden"]):
    def get_queryset(self) -> models.QuerySet[Hidden]:
        return super().get_queryset().filter(deleted=False)


class Hidden(models.Model):
    """Rows that the default manager hides."""

    name = models.CharField(max_length=50, unique=True)
    deleted = models.BooleanField(default=False)
    objects = VisibleManager()


class RefersToHidden(models.Model):
    to = models.ForeignKey(Hidden, models.CASCADE)


class Falsy(NaturalKeyModel):
    """Instances that are false in a condition."""

    natural_key_fields = ("name",)
    name = models.CharField(max_length=50, unique=True)

    def __len__(self) -> int:
        return 0


class RefersToFalsy(models.Model):
    to = models.ForeignKey(Falsy, models.CASCADE, null=True)


class Dangling(models.Model):
    """A reference that no constraint keeps from leading nowhere."""

    name = models.CharField(max_length=50, unique=True)
    to = models.ForeignKey(OneKey, models.DO_NOTHING, db_constraint=False, null=True)


class OddTable(models.Model):
    note = models.CharField(max_length=50)

    class Meta:
        db_table = "select from; a table"


class Unmanaged(models.Model):
    """A table that somebody else made; here, the tests."""

    name = models.CharField(max_length=50, unique=True)

    class Meta:
        managed = False
        db_table = "awkward_made_elsewhere"


# Identities that are not what they seem


class Person(models.Model):
    name = models.CharField(max_length=50, unique=True)


class Profile(models.Model):
    person = models.OneToOneField(Person, models.CASCADE)


class Note(models.Model):
    """A reference to a column that is a reference."""

    text = models.CharField(max_length=50, unique=True)
    profile = models.ForeignKey(Profile, models.CASCADE, to_field="person")


class Lowered(models.Model):
    """Known by a column that the database computes."""

    email = models.CharField(max_length=50)
    low = models.GeneratedField(
        expression=Lower("email"), output_field=models.CharField(max_length=50), db_persist=True, unique=True
    )


class Bookmark(models.Model):
    """Unique by a generic foreign key, and referred to."""

    content_type = models.ForeignKey(ContentType, models.CASCADE, related_name="+")
    object_id = models.PositiveBigIntegerField()
    target = GenericForeignKey()

    class Meta:
        unique_together = [("content_type", "object_id")]


class BookmarkNote(models.Model):
    text = models.CharField(max_length=50, unique=True)
    bookmark = models.ForeignKey(Bookmark, models.CASCADE)


class Plot(models.Model):
    """A composite primary key, part of which is a reference."""

    pk = models.CompositePrimaryKey("owner_id", "number")
    owner = models.ForeignKey(Person, models.CASCADE)
    number = models.IntegerField()
    note = models.CharField(max_length=50)


class Stamped(models.Model):
    at = models.DateTimeField(primary_key=True)
    note = models.CharField(max_length=50)
