"""One delivery, from arq's call to its outcome. Read `executor.py` first.

The end of a job has a name in every layer it passes:

| handler | `retry.decide` | `Outcome` | what arq sees | loop verdict | Redis |
|---|---|---|---|---|---|
| `Result`, `None` | - | `Finished(completed)` | return value | `Completed` | done |
| `Rejected` | - | `Finished(rejected)` | `{"rejected": ...}` | `Completed` | done |
| `Cancel` | - | `Finished(cancelled)` | `JobCancelledError` | `Failed` | done |
| `Snooze` | - | `Later` | `Retry(defer)` | `RetryLater` | again |
| lock conflict, lost connection | `RunAgain`, then `PutBack` | -, then `Later` | `Retry(defer)` | `RetryLater` | again |
| any other exception | `SpendAttempt` | `Later`, at last `Finished(dead)` | `Retry`, `JobDeadError` | `RetryLater`, `Failed` | again, done |
| a broken constraint | `MarkDead` | `Finished(dead)` | `JobDeadError` | `Failed` | done |
| cut short by our shutdown | - | - | `CancelledError` | `HandBack` | back |
| (another payload under the same id) | - | `Conflict` | `JobConflictError` | `Failed` | done |
"""  # noqa: E501 - a table's row is a line
