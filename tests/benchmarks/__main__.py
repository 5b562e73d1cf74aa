import os
import sys

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
django.setup()

from tests.benchmarks.benchmark import main  # noqa: E402 - models can be imported once Django is set up

sys.exit(main(sys.argv[1:]))
