"""What the engine tells the project. Sent when the operation is done, before its report is stored as finished.

Every signal's sender is the ``Report`` class; receivers get ``report`` (``backups.reporting.Report``) and
``using`` (the database alias).
"""

from django.dispatch import Signal

backup_created = Signal()
restore_finished = Signal()
system_reinitialised = Signal()
operation_failed = Signal()
"""An operation ended with an error; nothing that it was to do is there, unless its report says ``committed``."""
