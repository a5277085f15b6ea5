"""One delivery, from arq's call to its outcome. Read `executor.py` first.

The end of a job has a name in every layer it passes:

| handler | cause (`retry.cause_of`) | `retry.decide` | what arq sees | Redis |
|---|---|---|---|---|
| `Result`, `None` | - | `Finished(completed)` | return value | done |
| `Rejected` | - | `Finished(rejected)` | `{"rejected": ...}` | done |
| `Cancel` | - | `Finished(cancelled)` | `JobCancelledError` | done |
| (not begun before it expired) | - | cancelled, not run | `JobCancelledError` | done |
| `Continue` | - | `Continued`, in the row | `Retry(defer)` | again |
| `Snooze` | - | `Later` | `Retry(defer)` | again |
| lock conflict, statement timeout | `CONFLICT` | `put_back`, at last an attempt | `Retry(defer)` | again |
| lost connection, server away | `OUTAGE` | `put_back`, counts nothing | `Retry(defer)` | again |
| lost connection, server there | `OWN` | `spend_attempt`, at last `mark_dead` | `Retry`, `JobDeadError` | again, done |
| a grant, a table, disk missing | `ENVIRONMENT` | `blocked`, a day long | `Retry(defer)` | again |
| kind or payload unknown here | `NEWER_WORKER` | `blocked`, a day long, then dead | `Retry(defer)` | again |
| any other exception, `sys.exit` too | `OWN` | `spend_attempt`, at last `mark_dead` | `Retry`, `JobDeadError` | again, done |
| a broken constraint, `COMMIT` as text | `HOPELESS` | `mark_dead` | `JobDeadError` | done |
| (three processes died under it) | `HOPELESS` | `mark_dead`, not run | `JobDeadError` | done |
| cut short by our shutdown | - | - | `CancelledError` | back |
| aborted by a client | - | `cancel`, once the row says so | `JobCancelledError` | done |
| (final, another payload meant) | - | `Conflict` | `JobConflictError` | done |

While a job is queued, its row is right: the delivery goes on with the row's own payload.
"""  # noqa: E501 - a table's row is a line
