"""Queries to the name servers that are under way: equal ones are sent once.

Called by: _dns.py.

Invariants:
- The first caller asks the servers in its own greenlet; the others wait.  If it leaves, the next one goes on where it
  has stopped: the query is not sent again, and a reply that has come meanwhile counts.
- A query ends when it has an outcome or when its last caller has left.
- Each caller gets its own copy of a failure.
"""

from collections.abc import Callable, Iterator, Sequence

from greenlet import greenlet

from weald._core import Semaphore, killall, monotonic, sleep, spawn_raw
from weald.resolver._answers import Answer, DnsFailure, Question, Rejection, Server
from weald.resolver._lookups import Pace

__all__ = ["Queries", "Query"]


class Query:
    """A question, and how far the servers have been asked.

    `tries` yields the servers, each with the seconds that it has to reply; all of it ends after `lifetime` seconds.
    """

    __slots__ = (
        "_asked",
        "_end",
        "_failure",
        "_next",
        "_question",
        "_tries",
        "_turn",
        "_until",
        "callers",
        "helper",
        "outcome",
    )

    def __init__(self, question: Question, tries: Iterator[tuple[Server, float]], lifetime: float | None) -> None:
        self.callers = 0
        self.helper: greenlet | None = None  # asks in place of a caller
        self.outcome: Answer | DnsFailure | None = None
        self._question, self._tries = question, tries
        self._end = float("inf") if lifetime is None else monotonic() + lifetime
        self._turn = Semaphore()  # for the one who asks
        self._next: tuple[Server, float] | None = None  # to be asked
        self._asked: Server | None = None  # whose reply is waited for
        self._until = 0.0
        self._failure: DnsFailure | None = None

    def finish(self) -> Answer | DnsFailure:
        """Ask the servers, or wait until another greenlet has done so; return the outcome."""
        with self._turn:
            if self.outcome is None:
                self.outcome = self._ask()
                self._question.close()
            return self.outcome

    def give_up(self) -> None:
        """Stop waiting for replies: no caller is left."""
        if self.helper is not None:
            killall([self.helper], block=False)
        self._question.close()

    def _ask(self) -> Answer | DnsFailure:
        """Ask one server after the other.  After it has been cut short, another call goes on from there."""
        question = self._question
        while True:
            now = monotonic()
            if self._asked is None:
                if self._next is None:
                    self._next = next(self._tries, None)
                if self._next is None:
                    break
                server, patience = self._next
                self._until = min(now + patience, self._end)
                question.ask(server, max(self._until - now, 0))
                self._asked, self._next, self._failure = server, None, None
            reply = question.next_reply(max(self._until - now, 0))
            if reply is not None:
                sender, outcome = reply
                if not isinstance(outcome, Rejection):
                    return outcome
                if sender == self._asked:
                    self._failure = outcome
                elif monotonic() < self._until:
                    continue
            self._asked = None
            if monotonic() >= self._end:
                break
        return self._failure or Rejection()


class Queries:
    """The queries under way, by name and kind; `make(name, kind)` makes another one."""

    def __init__(self, make: Callable[[str, str], Query]) -> None:
        self.pace = Pace()
        self._make = make
        self._under_way: dict[tuple[str, str], Query] = {}

    def __len__(self) -> int:
        return len(self._under_way)

    def ask(self, name: str, kinds: Sequence[str]) -> list[Answer | DnsFailure]:
        """Ask for records of all these kinds at the same time; return the outcome of each."""
        joined: list[tuple[tuple[str, str], Query]] = []
        try:
            for kind in kinds:
                key = name, kind
                query = self._under_way.get(key)
                if query is None or query.outcome is not None:
                    query = self._under_way[key] = self._make(name, kind)
                    if joined:
                        query.helper = spawn_raw(_help, query)
                query.callers += 1
                joined.append((key, query))
            outcomes = [_own(query.finish()) for _, query in joined]
        finally:
            for key, query in joined:
                query.callers -= 1
                if query.outcome is None and query.callers:
                    continue
                if self._under_way.get(key) is query:
                    del self._under_way[key]
                if query.outcome is None:
                    query.give_up()
        if not self._under_way:
            sleep(0)  # the greenlets that have read the replies end, too: the caller's thread may be about to end
        return outcomes


def _help(query: Query) -> None:
    """Ask while the caller asks for something else; an unexpected error is the caller's, who will get it as well."""
    try:
        query.finish()
    except Exception:
        pass


def _own(outcome: Answer | DnsFailure) -> Answer | DnsFailure:
    """The outcome, or a copy of a failure: an exception keeps the frames of all who have raised it."""
    return type(outcome)(*outcome.args) if isinstance(outcome, DnsFailure) else outcome
