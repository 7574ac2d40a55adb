"""A Celery app with an instrumentation, named by INSTRUMENTATION, that writes its records to the file SINK.

Each line is a JSON list: "event" or "transaction", the task's name, the tag that the task has set, if any.
"""

import json
import os
import time

from celery import Celery


def seen(kind, name, tag=None):
    with open(os.environ["SINK"], "a") as sink:
        sink.write(json.dumps([kind, name, tag]) + "\n")


def tag(value):
    """Tag the record of the running task."""


def sentry():
    global tag
    import sentry_sdk

    class Sink(sentry_sdk.transport.Transport):
        def capture_envelope(self, envelope):
            for item in envelope.items:
                payload = item.payload.json or {}
                if item.type in ("event", "transaction"):
                    seen(item.type, payload.get("transaction"), (payload.get("tags") or {}).get("n"))

    sentry_sdk.init(dsn="http://key@127.0.0.1:9/1", traces_sample_rate=1.0, transport=Sink)

    def tag(value):
        sentry_sdk.set_tag("n", value)


def newrelic():
    global tag
    os.environ.update(NEW_RELIC_DEVELOPER_MODE="true", NEW_RELIC_LICENSE_KEY="0" * 40, NEW_RELIC_APP_NAME="proj",
                      NEW_RELIC_STARTUP_TIMEOUT="10.0", NEW_RELIC_LOG="stderr")
    import newrelic.agent
    from newrelic.core.application import Application

    record = Application.record_transaction

    def record_transaction(self, data):
        tags = {attribute.name: attribute.value for attribute in data.user_attributes}
        seen("transaction", data.name, tags.get("n"))
        for _ in data.errors:
            seen("event", data.name, tags.get("n"))
        return record(self, data)

    Application.record_transaction = record_transaction
    newrelic.agent.initialize()
    newrelic.agent.register_application(timeout=10.0)

    def tag(value):
        newrelic.agent.add_custom_attribute("n", value)


def ddtrace():
    global tag
    os.environ.update(DD_REMOTE_CONFIGURATION_ENABLED="false", DD_INSTRUMENTATION_TELEMETRY_ENABLED="false")
    import ddtrace
    from ddtrace.trace import TraceFilter, tracer

    class Sink(TraceFilter):
        def process_trace(self, trace):
            for span in trace:
                if span.name == "celery.run":
                    seen("transaction", span.resource, span.get_tag("n"))
                    if span.error:
                        seen("event", span.resource, span.get_tag("n"))

    ddtrace.patch(celery=True)
    tracer.configure(trace_processors=[Sink()])

    def tag(value):
        tracer.current_span().set_tag("n", value)


def opentelemetry():
    global tag
    from celery import signals
    from opentelemetry import trace
    from opentelemetry.instrumentation.celery import CeleryInstrumentor
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

    class Sink(SpanExporter):
        def export(self, spans):
            for span in spans:
                if span.name.startswith("run/"):
                    name = span.name.removeprefix("run/")
                    seen("transaction", name, span.attributes.get("n"))
                    if not span.status.is_ok:
                        seen("event", name, span.attributes.get("n"))
            return SpanExportResult.SUCCESS

    @signals.worker_process_init.connect(weak=False)  # as its documentation has it
    def begin(**_):
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(Sink()))
        trace.set_tracer_provider(provider)
        CeleryInstrumentor().instrument()

    def tag(value):
        trace.get_current_span().set_attribute("n", value)


globals()[os.environ["INSTRUMENTATION"]]()
app = Celery("proj", broker=os.environ["BROKER"], backend=os.environ["BACKEND"])
app.conf.broker_connection_retry_on_startup = True


@app.task(name="works")
def works(number):
    tag(str(number))
    time.sleep(0.05)
    return number


@app.task(name="fails")
def fails(number):
    tag(str(number))
    time.sleep(0.05)
    raise ValueError(number)
