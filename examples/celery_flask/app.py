"""A Flask app that submits tasks and polls them.

    weald celery -A app.celery worker -c 100
    flask --app app run

POST /sums with {"numbers": [1, 2, 3]} answers 202 and a URL; GET of that URL answers 202 until there is a result.
"""

import os
import time
from typing import Any

from celery import Celery
from celery.result import AsyncResult
from flask import Flask, jsonify, request, url_for

app = Flask(__name__)
celery = Celery(
    "app",
    broker=os.environ.get("BROKER", "redis://127.0.0.1/0"),
    backend=os.environ.get("BACKEND", "redis://127.0.0.1/1"),
)
celery.conf.update(broker_connection_retry_on_startup=True, task_track_started=True, result_expires=3600)


@celery.task(name="add_up", soft_time_limit=30)
def add_up(numbers: list[float]) -> float:
    """The sum, after a while."""
    time.sleep(0.2)
    return sum(numbers)


@app.post("/sums")
def submit() -> Any:
    """Send the task."""
    numbers = (request.get_json(silent=True) or {}).get("numbers")
    if not isinstance(numbers, list) or not all(isinstance(number, (int, float)) for number in numbers):
        return jsonify(error="numbers: a list of numbers is wanted"), 400
    where = url_for("poll", task_id=add_up.delay(numbers).id)
    return jsonify(poll=where), 202, {"Location": where}


@app.get("/sums/<task_id>")
def poll(task_id: str) -> Any:
    """Return the state of the task."""
    result: AsyncResult[Any] = celery.AsyncResult(task_id)
    if not result.ready():
        return jsonify(state=result.state), 202
    if result.failed():
        return jsonify(state=result.state, error=repr(result.result)), 500
    return jsonify(state=result.state, sum=result.result)
