"""weald.threadpool.Proxy: an object whose calls run in native threads, while greenlets wait for them."""

import copy
import functools
import os
import sqlite3
import threading
from types import SimpleNamespace

import pytest
from helpers import PATIENCE, python, settle, wait_until
from test_threadpool import Gate

import weald
from weald import Timeout
from weald.threadpool import Proxy, ThreadPool, unproxied


@pytest.fixture(autouse=True)
def hub():
    weald.get_hub()  # a thread without one makes calls itself


def threaded(proxy, call=threading.get_ident):
    return call() != threading.get_ident()


class Thing:
    """An object like those of other libraries: methods, properties, slots, items, a context."""

    kind = "thing"

    def __init__(self):
        self.value = 1
        self.gate = Gate()
        self.seen = []
        self.items = {"a": 1}

    def _note(self, what):
        self.seen.append((what, threading.get_ident()))

    def where(self):
        return threading.get_ident()

    def me(self):
        return self

    def other(self):
        return Thing()

    def wait(self, value=None):
        return self.gate.pass_through(value)

    def fail(self):
        raise KeyError("in a thread")

    @property
    def computed(self):
        return threading.get_ident()

    @functools.cached_property
    def cached(self):
        return threading.get_ident()

    @classmethod
    def made(cls):
        return threading.get_ident()

    def __getattr__(self, name):
        if name == "found_late":
            return threading.get_ident()
        raise AttributeError(name)

    def __enter__(self):
        self._note("enter")
        return self

    def __exit__(self, kind, error, traceback):
        self._note("exit")
        return kind is KeyError

    def __getitem__(self, key):
        self._note("getitem")
        return self.items[key]

    def __setitem__(self, key, value):
        self._note("setitem")
        self.items[key] = value

    def __delitem__(self, key):
        self._note("delitem")
        del self.items[key]

    def __contains__(self, key):
        self._note("contains")
        return key in self.items

    def __len__(self):
        self._note("len")
        return len(self.items)

    def __iter__(self):
        for item in self.items:
            self._note("next")
            yield item

    def __call__(self, value):
        self._note("call")
        return value


def test_calls_run_in_threads_while_others_go_on():
    thing = Thing()
    proxy = Proxy(thing)
    assert proxy.where() != threading.get_ident()
    thing.gate.open_later()
    assert proxy.wait("result") == "result"


def test_an_error_is_raised_where_the_call_was_made():
    with pytest.raises(KeyError, match="in a thread"):
        Proxy(Thing()).fail()
    with pytest.raises(AttributeError, match="nothing"):
        Proxy(Thing()).nothing  # noqa: B018


def test_data_is_read_in_place_and_what_runs_code_in_a_thread():
    proxy, here = Proxy(Thing()), threading.get_ident()
    assert (proxy.value, proxy.kind) == (1, "thing")
    assert proxy.computed != here
    assert proxy.cached != here
    assert proxy.found_late != here
    assert proxy.made() != here
    proxy.value = 2
    assert unproxied(proxy).value == 2
    del proxy.value
    assert not hasattr(proxy, "value")


def test_operators_run_in_threads():
    thing = Thing()
    proxy = Proxy(thing)
    with proxy as entered:
        assert entered is proxy
        assert proxy["a"] == 1
        proxy["b"] = 2
        assert "b" in proxy and len(proxy) == 2 and list(proxy) == ["a", "b"] and proxy
        del proxy["b"]
        assert proxy("called") == "called"
        raise KeyError("that the context suppresses")
    assert {what for what, _ in thing.seen} == {
        *("enter", "exit", "getitem", "setitem", "delitem", "contains", "len", "next", "call")
    }
    assert threading.get_ident() not in {where for _, where in thing.seen}
    with pytest.raises(TypeError):
        proxy + 1
    with pytest.raises(TypeError):
        len(Proxy(1))
    with pytest.raises(TypeError):
        iter(Proxy(1))


def test_it_is_what_it_stands_for():
    thing = Thing()
    proxy = Proxy(thing)
    assert isinstance(proxy, Thing) and isinstance(proxy, Proxy)
    assert proxy == thing and thing == proxy and proxy == Proxy(thing) and hash(proxy) == hash(thing)
    assert proxy != Thing()
    assert proxy.me() is proxy
    assert unproxied(proxy) is thing and unproxied(thing) is thing
    assert unproxied(Proxy(proxy)) is thing
    assert repr(proxy) == f"<Proxy of {thing!r}>" and str(proxy) == str(thing)
    assert set(dir(thing)) <= set(dir(proxy))
    assert copy.copy(Proxy([1])) == [1] and type(copy.copy(Proxy([1]))) is list


def test_what_it_hands_out():
    plain, by_type = Proxy(Thing()), Proxy(Thing(), autowrap=[Thing])
    by_name = Proxy(Thing(), autowrap_names=["other"])
    assert type(plain.other()) is Thing
    assert type(by_type.other()) is type(by_name.other()) is Proxy
    assert type(by_name.other().other()) is Proxy
    holder = Proxy(SimpleNamespace(thing=Thing(), name=Thing), autowrap=[Thing], autowrap_names=["name"])
    assert type(holder.thing) is Proxy
    assert type(Proxy(sqlite3).Error) is type  # so that `except module.Error` works
    assert type(Proxy(SimpleNamespace(items=[1]), autowrap_names=["items"]).items) is Proxy


def test_arguments_are_the_objects_themselves():
    thing = Thing()
    proxy = Proxy(thing)
    assert Proxy(isinstance)(proxy, Thing)
    assert Proxy(SimpleNamespace(call=lambda *, value: type(value))).call(value=proxy) is Thing


def test_a_pool_of_ones_own():
    pool = ThreadPool(1)
    proxy = Proxy(pool.apply(sqlite3.connect, (":memory:",)), autowrap=[sqlite3.Cursor], pool=pool)
    try:
        proxy.execute("create table numbers(number)")
        assert proxy.executemany("insert into numbers values(?)", [(1,), (2,)]).rowcount == 2
        assert list(proxy.execute("select number from numbers order by number")) == [(1,), (2,)]
        assert proxy.in_transaction  # a property, which checks the thread, too
        proxy.close()
    finally:
        pool.kill()


def test_a_job_and_a_thread_without_a_hub_make_calls_themselves():
    proxy = Proxy(Thing())
    inside = Proxy(SimpleNamespace(call=lambda: (threading.get_ident(), proxy.where())))
    one, other = inside.call()
    assert one == other != threading.get_ident()
    python(
        """
        import threading
        from weald import _core
        from weald.threadpool import Proxy
        assert Proxy(threading).get_ident() == threading.get_ident()
        assert _core.get_hub_if_exists() is None
        """
    )


def test_a_call_whose_caller_has_gone_is_waited_for():
    thing, other = Thing(), Thing()
    proxy = Proxy(thing, autowrap=[Thing])
    caller = weald.spawn(proxy.wait)
    wait_until(lambda: thing.gate.inside == 1)
    caller.kill()
    later = weald.spawn(proxy.where)
    assert Proxy(other).where()  # no other call waits
    settle()
    assert not later.ready()
    thing.gate.open()
    assert later.get(timeout=PATIENCE) != threading.get_ident()
    assert thing.gate.passed == 1


def test_what_it_has_handed_out_waits_too():
    thing = Thing()
    proxy = Proxy(thing, autowrap=[Thing])
    part = proxy.other()
    caller = weald.spawn(proxy.wait)
    wait_until(lambda: thing.gate.inside == 1)
    caller.kill()
    later = weald.spawn(part.where)
    settle()
    assert not later.ready()
    thing.gate.open()
    later.get(timeout=PATIENCE)


def test_what_a_module_hands_out_is_on_its_own():
    thing = Thing()
    module = Proxy(SimpleNamespace, autowrap=[SimpleNamespace])
    one, other = module(wait=thing.wait), module(where=thing.where)
    caller = weald.spawn(one.wait)
    wait_until(lambda: thing.gate.inside == 1)
    caller.kill()
    assert other.where() != threading.get_ident()
    thing.gate.open()


def test_a_call_that_has_not_begun_does_not_begin_for_a_caller_who_has_gone():
    pool = ThreadPool(1)
    thing = Thing()
    called = []
    first = weald.spawn(Proxy(thing, pool=pool).wait)
    wait_until(lambda: thing.gate.inside == 1)
    second = weald.spawn(Proxy(called.append, pool=pool), 1)
    settle()
    second.kill()
    thing.gate.open()
    first.get(timeout=PATIENCE)
    Proxy(called.append, pool=pool)(2)
    assert called == [2]
    pool.kill()


def test_a_query_is_interrupted():
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    begun = threading.Event()
    connection.create_function("begun", 0, lambda: begun.set() or 1)
    proxy = Proxy(connection, autowrap=[sqlite3.Cursor])
    endless = "with recursive n(i) as (select begun() union all select i + 1 from n) select max(i) from n"
    caller = weald.spawn(proxy.execute, endless)
    wait_until(begun.is_set)
    caller.kill()
    proxy.interrupt()
    assert proxy.execute("select 1").fetchone() == (1,)
    proxy.close()


@pytest.mark.filterwarnings("ignore:.*multi-threaded")
def test_a_child_waits_for_no_call_of_its_parent():
    thing = Thing()
    proxy = Proxy(thing)
    caller = weald.spawn(proxy.wait)
    wait_until(lambda: thing.gate.inside == 1)
    caller.kill()
    pid = os.fork()
    if not pid:
        try:
            os._exit(0 if Timeout.start_new(20) and proxy.where() else 1)
        finally:
            os._exit(2)
    thing.gate.open()
    assert os.waitpid(pid, 0)[1] == 0


# ------------------------------------------------------------------ SQLAlchemy, Django


def waiting_function(begun, gate):
    def wait(value):
        begun.set()
        return gate.pass_through(value)

    return wait


def test_sqlalchemy(tmp_path):
    sqlalchemy = pytest.importorskip("sqlalchemy")
    gate = Gate()
    engine = sqlalchemy.create_engine(
        f"sqlite:///{tmp_path}/some.db", module=Proxy(sqlite3, autowrap=[sqlite3.Connection, sqlite3.Cursor])
    )

    @sqlalchemy.event.listens_for(engine, "connect")
    def connected(connection, record):
        connection.create_function("pass_through", 1, gate.pass_through)

    table = sqlalchemy.Table("numbers", sqlalchemy.MetaData(), sqlalchemy.Column("number", sqlalchemy.Integer))
    table.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(table.insert(), [{"number": number} for number in range(5)])

    def query(number):
        with engine.connect() as connection:
            return connection.execute(
                sqlalchemy.text("select pass_through(number) from numbers where number = :it"), {"it": number}
            ).scalar_one()

    callers = [weald.spawn(query, number) for number in range(4)]
    wait_until(lambda: gate.inside == 4)
    gate.open()
    assert [caller.get(timeout=PATIENCE) for caller in callers] == [0, 1, 2, 3]
    with pytest.raises(sqlalchemy.exc.OperationalError), engine.connect() as connection:
        connection.execute(sqlalchemy.text("select * from nowhere"))
    with engine.connect() as connection, pytest.raises(RuntimeError), connection.begin():
        connection.execute(table.insert(), [{"number": 6}])
        raise RuntimeError("rolls back")
    with engine.connect() as connection:
        assert connection.execute(sqlalchemy.select(sqlalchemy.func.count()).select_from(table)).scalar_one() == 5
    engine.dispose()


DJANGO_BACKEND = """
import sqlite3
from django.db.backends.sqlite3 import base
from weald.threadpool import Proxy, default

class DatabaseWrapper(base.DatabaseWrapper):
    def get_new_connection(self, conn_params):
        connect = super().get_new_connection
        return Proxy(default().apply(connect, (conn_params,)), autowrap=[sqlite3.Cursor])
"""


def test_django(tmp_path):
    (tmp_path / "pooled_sqlite").mkdir()
    (tmp_path / "pooled_sqlite" / "__init__.py").touch()
    (tmp_path / "pooled_sqlite" / "base.py").write_text(DJANGO_BACKEND)
    python(
        f"""
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        from weald import monkey
        monkey.patch_all()
        import weald, threading
        from django.conf import settings
        settings.configure(
            DATABASES={{"default": {{"ENGINE": "pooled_sqlite", "NAME": {str(tmp_path / "some.db")!r}}}}},
            USE_TZ=True,
        )
        import django
        django.setup()
        from django.db import IntegrityError, connection, models, transaction

        class Number(models.Model):
            number = models.IntegerField(unique=True)
            class Meta:
                app_label = "numbers"

        with connection.schema_editor() as editor:
            editor.create_model(Number)
        for number in range(5):
            Number.objects.create(number=number)
        try:
            with transaction.atomic():
                Number.objects.create(number=7)
                Number.objects.create(number=3)
        except IntegrityError:
            pass
        else:
            raise AssertionError
        assert sorted(Number.objects.values_list("number", flat=True)) == [0, 1, 2, 3, 4]
        assert [n.number for n in Number.objects.order_by("number").iterator(chunk_size=2)] == [0, 1, 2, 3, 4]

        opened = monkey.get_original("threading", "Event")()
        inside = []
        def query(number):
            def wait(value):
                inside.append(value)
                assert opened.wait(100), "the loop was stalled"
                return value
            connection.ensure_connection()
            connection.connection.create_function("wait", 1, wait)
            with connection.cursor() as cursor:
                cursor.execute("select wait(number) from numbers_number where number = %s", [number])
                found = cursor.fetchone()
            connection.close()
            return found[0]

        callers = [weald.spawn(query, number) for number in range(3)]
        while len(inside) < 3:
            weald.sleep(0.001)
        opened.set()
        assert [caller.get() for caller in callers] == [0, 1, 2]
        """
    )
