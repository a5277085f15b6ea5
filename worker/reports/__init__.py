"""Reports: from one snapshot of the ledger to a file that people can use."""


class Reports:
    """Where reports go."""

    def __init__(self, url: str) -> None:
        self.url = url
