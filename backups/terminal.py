from backups.reporting import NoProgress


class TerminalProgress(NoProgress):
    def __init__(self, *a, **k):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *a):
        pass
