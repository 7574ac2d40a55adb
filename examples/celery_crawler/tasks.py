"""The crawler that the README of Celery's gevent example promises: a task per page, which sends those it links to.

    weald celery -A tasks worker -c 100
    python crawl.py http://127.0.0.1:8000/page/0

`many.py` starts a site of 10,000 pages and two workers, and crawls it.

Pages seen are kept in a Redis set, one per crawl, so that each is fetched once whichever worker finds it first.
"""

import os
from html.parser import HTMLParser
from urllib.parse import urldefrag, urljoin, urlsplit
from urllib.request import urlopen

import redis
from celery import Celery, Task

BACKEND = os.environ.get("BACKEND", "redis://127.0.0.1/1")
app = Celery("tasks", broker=os.environ.get("BROKER", "redis://127.0.0.1/0"), backend=BACKEND)
app.conf.update(broker_connection_retry_on_startup=True, task_ignore_result=True, task_acks_late=True)
store = redis.Redis(connection_pool=redis.BlockingConnectionPool.from_url(BACKEND, max_connections=4, timeout=30))
KEEP = 3600  # seconds for which the data of a crawl is kept


class Links(HTMLParser):
    """Collects the links of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.found += [value for name, value in attrs if name == "href" and value]


def visit(crawl: str, url: str) -> bool:
    """Send the task for `url`, unless it has been sent; return whether it was sent now."""
    if not store.sadd(f"{crawl}:seen", url):
        return False
    store.expire(f"{crawl}:seen", KEEP)
    store.incr(f"{crawl}:open")
    fetch.delay(crawl, url)
    return True


@app.task(name="crawl.fetch", bind=True, soft_time_limit=60)
def fetch(self: Task, crawl: str, url: str) -> None:
    """Fetch a page and send a task for each page of the same host that it links to."""
    outcome = "failed"
    try:
        with urlopen(url, timeout=20) as response:
            links = Links()
            body = response.read()
            links.feed(body.decode("utf-8", "replace"))
        for link in links.found:
            target = urldefrag(urljoin(url, link)).url
            if urlsplit(target).netloc == urlsplit(url).netloc:
                visit(crawl, target)
        outcome = "done"
        store.hincrby(f"{crawl}:bytes", self.request.hostname, len(body))
        store.hincrby(f"{crawl}:pages", self.request.hostname, 1)
    finally:
        # A task that is delivered twice counts once.
        if store.sadd(f"{crawl}:{outcome}", url):
            for key in outcome, "bytes", "pages":
                store.expire(f"{crawl}:{key}", KEEP)
            store.decr(f"{crawl}:open")
