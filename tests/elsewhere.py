"""Other processes without a process: what goes there and comes back goes through a pickle."""

import pickle
from collections.abc import Callable, Iterable
from typing import Any


def there(thing: Any) -> Any:
    """What arrives."""
    return pickle.loads(pickle.dumps(thing))


def parallel(**_: Any) -> Callable[[Iterable[Any]], list[Any]]:
    """Stands in for ``joblib.Parallel``; of a method, the object goes with it."""
    return lambda jobs: [there(there(job[0])(*there(job[1]))) for job in jobs]
