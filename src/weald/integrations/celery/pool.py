"""TaskPool: Celery's pool interface on jobs.

Called by: Celery's worker.

Invariants:
- `running` holds the jobs that have a slot, at most `limit`, apart from the surplus when the pool shrinks; `waiting`
  holds the others in their order.  A slot that becomes free goes to the first of them.
- `on_apply` never blocks: a full pool does not delay the consumer.
- A waiting job is not acknowledged.  When the pool closes, waiting jobs are dropped, and the broker delivers them
  again; the same is done when the broker's connection is lost, for messages that the broker delivers again.
"""

import itertools
import signal
from collections import deque
from collections.abc import Callable, Iterator
from contextvars import Context, copy_context
from typing import Any

from celery import beat, platforms, signals
from celery.app import trace
from celery.concurrency.base import BasePool
from celery.utils.log import get_logger
from celery.worker import state

from weald._core import Event, monotonic, spawn_raw
from weald.integrations.celery import announcement, consumer, forks, replacement, results
from weald.integrations.celery.job import Job, JobPid, recording, wrap_body, wrap_inner
from weald.integrations.celery.timer import Timer
from weald.integrations.celery.watchdog import Watchdog

__all__ = ["TaskPool"]

logger = get_logger("celery.pool")

# Settings of the app, all in seconds but the last; see docs/celery.md.
DEFAULTS: dict[str, Any] = {
    "weald_shutdown_timeout": None,
    "weald_preempt_after": 0.1,
    "weald_stuck_timeout": 10.0,
    "weald_result_connections": 2,
}
COLD_PATIENCE = 5.0  # seconds that ended tasks get for their `finally` clauses
MEMORY_CHECK_INTERVAL = 1.0

_workers: dict[Any, Any] = {}  # app to its worker

announcement.announce()


@signals.worker_init.connect(weak=False)
def _worker_begins(sender: Any, **kwargs: Any) -> None:
    _workers[sender.app] = sender
    # `-B`: a greenlet.  In a forked process, which it would be, beat first closes all descriptors, the hub's too.
    beat._Process = None


class TaskPool(BasePool):
    """A worker pool of greenlets; see docs/celery.md."""

    Timer = Timer

    signal_safe = False
    is_green = True
    task_join_will_block = False
    consumer_loop = staticmethod(consumer.loop)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.running: dict[int, Job] = {}
        self.waiting: deque[Job] = deque()
        self.limits_hit = {"soft": 0, "hard": 0}
        self.timeout: float | None = self.options.get("timeout")
        self.soft_timeout: float | None = self.options.get("soft_timeout")
        self.max_tasks: int | None = self.options.get("maxtasksperchild")
        self.max_memory: int | None = self.options.get("max_memory_per_child")  # KiB
        self._numbers = itertools.count(1)
        self._ended_jobs = 0
        self._prepared: set[str] = set()
        self._context: Context = copy_context()
        self._empty = Event()
        self._empty.set()
        self._recycling = False
        self._memory_looked = 0.0
        self.watchdog = Watchdog(
            self.running.values,
            self._on_beat,
            self._on_stuck,
            self._setting("weald_preempt_after"),
            self._setting("weald_stuck_timeout"),
        )
        if self.app is not None:
            self.app.steps["consumer"].add(consumer.LoopStep)

    def _setting(self, name: str) -> Any:
        return DEFAULTS[name] if self.app is None else self.app.conf.get(name, DEFAULTS[name])

    # ---------------------------------------------------------------- starting and ending

    def on_start(self) -> None:
        """Celery calls it once, before the first task."""
        forks.mark_worker(recording)
        self._context = copy_context()
        self.watchdog.start()
        if self.app is not None:
            results.arrange_backend(self.app, self._setting("weald_result_connections"))
        self._take_over_hangup()
        signals.worker_process_init.send(sender=None)  # this process is the one that runs tasks, as with `-P solo`

    def _take_over_hangup(self) -> None:
        """Celery's handler of SIGHUP runs sys.argv again, which is not always a command."""
        if getattr(signal.getsignal(signal.SIGHUP), "__name__", "") == "restart_worker_sig_handler":
            platforms.signals["SIGHUP"] = lambda *args: self.recycle("SIGHUP")

    def on_stop(self) -> None:
        """Drop waiting tasks; let running ones end, within `weald_shutdown_timeout` seconds, then end them."""
        self._drop_waiting()
        cold = bool(state.should_terminate)
        if not self._empty.wait(COLD_PATIENCE if cold else self._setting("weald_shutdown_timeout")):
            logger.warning("ending %d tasks that still run, because the pool has to stop", len(self.running))
            self._end_all()
            self._empty.wait(COLD_PATIENCE)
        forks.end_children()
        self.watchdog.stop()

    def on_close(self) -> None:
        """Celery calls it at a warm shutdown: no more tasks begin."""
        self._drop_waiting()

    def on_terminate(self) -> None:
        """Celery calls it at a cold shutdown: running tasks are ended."""
        self._drop_waiting()
        self._end_all()
        self._empty.wait(COLD_PATIENCE)
        forks.end_children()
        self.watchdog.stop()

    def _end_all(self) -> None:
        worker = _workers.get(self.app)
        if worker is not None and getattr(worker, "consumer", None) is not None:
            # As Celery's cold shutdown: acks_late tasks go back.  The second name is that of Celery 5.5.
            c = worker.consumer
            cancel = getattr(c, "cancel_active_requests", None) or c.cancel_all_unacked_requests
            cancel()
        for job in list(self.running.values()):
            job.call_off()

    def _drop_waiting(self) -> None:
        self.waiting.clear()

    def flush(self) -> None:
        """Celery calls it when the broker's connection is lost: drop waiting tasks that the broker delivers again."""
        self.waiting = deque(job for job in self.waiting if _is_only_here(job))

    def restart(self) -> None:
        """Celery's `pool_restart`: modules may have been reloaded.  Running tasks go on."""
        self._prepared.clear()

    # ---------------------------------------------------------------- tasks

    def on_apply(
        self,
        target: Callable[..., Any],
        args: Any = None,
        kwargs: Any = None,
        soft_timeout: float | None = None,
        timeout: float | None = None,
        **callbacks: Any,
    ) -> Job:
        """Run a task, now or when a slot is free.  Return its job; never blocks."""
        job = Job(
            next(self._numbers),
            target,
            tuple(args or ()),
            kwargs or {},
            self.soft_timeout if soft_timeout is None else soft_timeout,
            self.timeout if timeout is None else timeout,
            callbacks,
            self._on_limit,
            self._job_ended,
        )
        if self._state in (self.CLOSE, self.TERMINATE):
            return job  # it never runs; the message goes back to the broker when the connection closes
        self.waiting.append(job)
        self._fill()
        return job

    def _fill(self) -> None:
        """Start waiting jobs while there are free slots."""
        while self.waiting and len(self.running) < self.limit and not self._recycling:
            self._start(self.waiting.popleft())

    def _start(self, job: Job) -> None:
        if self.app is not None and job.task_name not in self._prepared:
            self._prepare(job.task_name)
        job.gr_context = self._context.copy()
        self.running[job.number] = job
        self._empty.clear()
        self.watchdog.job_starts(job.hard)
        job.start()

    def _prepare(self, name: str) -> None:
        """Wrap the body of task `name`, once."""
        task = self.app.tasks.get(name)
        if task is None:
            return
        if not hasattr(task.run, "weald_body"):
            if hasattr(task, "_orig_run"):  # Celery's, for `autoretry_for`
                task._orig_run = wrap_inner(task._orig_run, name)
            task.run = wrap_body(task.run)
            worker = _workers.get(self.app)
            hostname = worker.hostname if worker is not None else None
            task.__trace__ = trace.build_tracer(name, task, self.app.loader, hostname, app=self.app)
        self._prepared.add(name)

    def _on_limit(self, kind: str) -> None:
        self.limits_hit[kind] += 1

    def _job_ended(self, job: Job) -> None:
        self.running.pop(job.number, None)
        self._ended_jobs += 1
        self._fill()
        if not self.running:
            self._empty.set()
        if self.max_tasks and self._ended_jobs >= self.max_tasks:
            self.recycle(f"{self._ended_jobs} tasks have run")

    def terminate_job(self, pid: int, signum: Any = None) -> None:
        """End the job whose `pid` (a JobPid) was given to Celery, and all others that run the same task.

        There are others if a lost connection had the broker deliver the task again; Celery knows the last one only.
        """
        if isinstance(pid, JobPid):
            for job in list(self.running.values()):
                if job.number == pid.number or job.task_id == pid.task_id:
                    job.call_off()

    # ---------------------------------------------------------------- size

    def grow(self, n: int = 1) -> None:
        """Add `n` slots."""
        self.limit += n
        self._fill()

    def shrink(self, n: int = 1) -> None:
        """Take `n` slots away; running tasks go on.  Raises ValueError if no slot would be left."""
        if self.limit - n < 1:
            raise ValueError(f"a pool of {self.limit} cannot shrink by {n}")
        self.limit -= n

    @property
    def num_processes(self) -> int:
        """The number of slots."""
        return int(self.limit)

    def spawn_n(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run `function` in a greenlet that is not a job; Celery runs remote control with it."""
        return spawn_raw(consumer.listen, function, *args, **kwargs)

    # ---------------------------------------------------------------- replacing the process

    def recycle(self, why: str) -> None:
        """Stop consuming, let running tasks end, give back waiting ones, then run the same command again.

        Does nothing if the worker stops already.
        """
        if not self._recycling and self._state == self.RUN and not replacement.told_to_stop():
            self._recycling = True
            logger.warning("the process will be replaced when its running tasks have ended: %s", why)
            replacement.at_exit()

    def _on_beat(self, now: float) -> None:
        if self.max_memory and now - self._memory_looked >= MEMORY_CHECK_INTERVAL:
            self._memory_looked = now
            used = replacement.resident_kib()
            if used > self.max_memory:
                self.recycle(f"it uses {used} KiB")

    def _on_stuck(self, job: Job) -> None:
        """In the watchdog's thread, while the hub is stuck in `job`: record its failure and replace the process.

        A worker that was told to stop ends instead.
        """

        def record() -> None:
            job.call("timeout_callback", False, job.hard)
            worker = _workers.get(self.app)
            if worker is not None:
                replacement.give_back(worker.consumer)

        replacement.after_recording(record, stopping=self._state != self.RUN and not self._recycling)

    # ---------------------------------------------------------------- banner and statistics

    def says(self, worker: Any) -> list[str]:
        """Lines about this pool for the worker's banner."""
        patience = self._setting("weald_shutdown_timeout")
        computing = self._setting("weald_preempt_after")
        return [
            f"weald's own: up to {self.limit} tasks at once in this process",
            "soft and hard limits, revokes and cold shutdowns end tasks, even if they compute or catch every exception",
            f"tasks that compute are paused after {computing} s" if computing else "a task that computes stops all",
            "SIGTERM waits for running tasks" + (f" for {patience} s" if patience is not None else "")
            + "; unacknowledged tasks go back to the queue",
            "results are stored later if the store is unreachable; running tasks go on without the broker",
        ]

    def contradictions(self, worker: Any) -> Iterator[str]:
        """Warnings about settings that contradict the promises."""
        conf = worker.app.conf
        for name in sorted(conf):
            if name.lower().startswith("weald_") and name.lower() not in DEFAULTS:
                yield f"there is no {name}; weald's settings are {', '.join(DEFAULTS)}"
        yield from announcement.of_limits(worker)
        yield from announcement.of_the_broker(worker)

    def _get_info(self) -> dict[str, Any]:
        now = monotonic()
        oldest = next(iter(self.running.values()), None)
        return {
            **super()._get_info(),
            "running": len(self.running),
            "waiting": len(self.waiting),
            "longest-running": None
            if oldest is None
            else {"id": oldest.task_id, "name": oldest.task_name, "seconds": round(now - oldest.began, 3)},
            "loop-lag": round(self.watchdog.lag, 4),
            "worst-loop-lag": round(self.watchdog.worst_lag, 4),
            "preempted": self.watchdog.preempted,
            "limits-hit": dict(self.limits_hit),
            "recycles": replacement.count(),
            "timers": len(_workers[self.app].timer) if self.app in _workers else 0,
            "tasks-run": self._ended_jobs,
            "max-tasks-per-child": self.max_tasks or "N/A",
            "timeouts": (self.soft_timeout or 0, self.timeout or 0),
        }


def _is_only_here(job: Job) -> bool:
    """Whether only this process has the job's message.

    kombu keeps a note of Redis's messages that are not given back; AMQP's all go back with the connection.
    """
    message = getattr(job.request, "message", None)
    qos = getattr(getattr(message, "channel", None), "qos", None)
    return message is not None and message.delivery_tag in getattr(qos, "_delivered", ())
