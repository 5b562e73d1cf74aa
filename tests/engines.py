"""The engines of the tests, and where their servers are."""

import os

ENGINES = ("sqlite", "postgresql", "mariadb")
URLS = {
    "sqlite": "sqlite://:memory:",
    "postgresql": os.environ.get("TEST_POSTGRESQL_URL", "postgres://postgres@127.0.0.1:5432/test"),
    "mariadb": os.environ.get("TEST_MARIADB_URL", "mysql://root@127.0.0.1:3306/test"),
}
