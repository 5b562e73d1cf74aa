from django.apps import AppConfig


class LibraryConfig(AppConfig):
    name = "tests.stranger.library"
    label = "library"
