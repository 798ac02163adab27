"""The same on Ray: an actor a core, with its models loaded once; files and stretches as blocks.

A worker or a machine that is lost takes nothing with it but what it was doing, which Ray gives to
another: results are written by the actors, each under the name of its file.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from streamtwl.archives.worker import Done, Job, Task, Worker
from streamtwl.errors import UsageError

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # it sends nothing to its makers
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # a GPU stays visible to ONNX Runtime
}
ONE_MACHINE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # all of it listens on loopback only


class Actor:
    """A worker, as Ray Data calls it."""

    def __init__(self, job: Job) -> None:
        self._worker = Worker(job)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        """Do the tasks of a batch; return what became of them, a column a field."""
        done = [asdict(self._worker.do(task)) for task in batch["task"]]
        return {name: [each[name] for each in done] for name in done[0]}


@contextlib.contextmanager
def cluster(engine: str, cores: int | None = None) -> Iterator[int]:
    """Begin on this machine, or join the cluster at ray://HOST:PORT; yield how many cores it has.

    `cores` of this machine are used; None: all.

    Raises UsageError where that cannot be.
    """
    address = engine.partition("://")[2]
    os.environ.update(ENVIRONMENT | ({} if address else ONE_MACHINE))
    try:
        import ray
    except ModuleNotFoundError:
        raise UsageError("--engine ray: pip install 'streamtwl[ray]' first") from None
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address:
            ray.init(address=address, **common)
        else:
            ray.init(address="local", num_cpus=cores, include_dashboard=False, **common)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        said = str(error).strip().splitlines()[:1]
        raise UsageError(f"--engine {engine}: there is no such cluster: {said}") from None
    try:
        yield max(1, int(ray.cluster_resources().get("CPU", 1)))
    finally:
        ray.shutdown()


def labelled(
    job: Job, tasks: Sequence[Task], stop_requested: Callable[[], int]
) -> Generator[Done, None, None]:
    """Yield what became of each task, in the order in which they end."""
    import ray.data
    from ray.data import ActorPoolStrategy, DataContext, ExecutionOptions

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options = ExecutionOptions(preserve_order=False)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    cores = max(1, int(ray.cluster_resources().get("CPU", 1)))
    actors = min(cores, len(tasks))
    rows = ray.data.from_items(
        [{"task": task} for task in tasks], override_num_blocks=len(tasks)
    ).map_batches(
        Actor,
        fn_constructor_args=(job,),
        batch_size=1,
        compute=ActorPoolStrategy(
            min_size=1,  # what a lost machine leaves is enough to end with
            max_size=actors,
            initial_size=actors,
            max_tasks_in_flight_per_actor=2,
        ),
        num_cpus=1,
    )  # by default its actors are started, and their tasks tried, again without end
    for row in rows.iter_rows():
        yield Done(**row)
        if stop_requested():
            return
