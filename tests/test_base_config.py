"""The settings: sources of a value, accepted values, errors.

`weald.config` is the process's; most tests make a Config of their own, with an environment of their own.
"""

import pytest
from helpers import python

from weald._base import config as module
from weald._base.config import Config


def test_a_setting_comes_from_its_variable_until_it_is_assigned():
    config = Config({"WEALD_THREADPOOL_SIZE": "3", "WEALD_RESOLVER_TIMEOUT": "2.5"})
    assert config.threadpool_size == 3
    assert config.resolver_timeout == 2.5
    config.set("threadpool_size", "5")
    assert config.threadpool_size == 5
    config.resolver_timeout = None
    assert config.resolver_timeout is None


def test_without_a_variable_or_with_an_empty_one_it_is_the_default():
    assert Config({}).threadpool_size == Config({"WEALD_THREADPOOL_SIZE": ""}).threadpool_size == 10


def test_a_variable_is_read_when_somebody_looks():
    environ = {"WEALD_THREADPOOL_SIZE": "3"}
    config = Config(environ)
    environ["WEALD_THREADPOOL_SIZE"] = "4"
    assert config.threadpool_size == 4
    environ["WEALD_THREADPOOL_SIZE"] = "5"
    assert config.threadpool_size == 4


def test_what_does_something_is_read_at_once():
    out = python(
        """
        import os
        os.environ.update(WEALD_LOOP="libev", WEALD_TRACK_GREENLET_TREE="0")
        import weald
        print(weald.get_hub().loop.name, weald.spawn(int).spawning_greenlet)
        """
    )
    assert out == "libev None\n"


def test_an_importable_setting_takes_a_name_a_path_a_list_or_the_thing_itself():
    python(
        """
        import weald
        from weald.resolver.thread import Resolver
        assert weald.config.resolver is Resolver
        path = "weald.resolver.thread.Resolver"
        for value in ("thread", "nonesuch,thread", ["no.such.Thing", "thread"], path, Resolver):
            weald.config.resolver = value
            assert weald.config.resolver is Resolver, value

        class Mine(Resolver):
            pass

        weald.config.resolver = Mine
        from weald import resolver
        assert type(resolver.current()) is Mine
        """
    )


def test_a_package_that_is_missing_is_named():
    python(
        """
        import sys
        sys.modules["pycares"] = None
        import weald
        try:
            weald.config.resolver = "ares"
        except ValueError as error:
            assert "ares needs pycares, which is not installed (pip install weald[ares])" in str(error), error
        else:
            raise SystemExit("no error")
        weald.config.resolver = "ares,thread"
        assert weald.config.resolver.__module__ == "weald.resolver.thread"
        """
    )


@pytest.mark.parametrize(
    ("convert", "value", "result"),
    [
        ("as_bool", " On ", True),
        ("as_bool", "no", False),
        ("as_bool", "", False),
        ("as_bool", 2, True),
        ("as_bool", [], False),
        ("as_seconds", "0.5", 0.5),
        ("as_seconds", "", None),
        ("as_seconds", None, None),
        ("as_bytes", "3", 3),
        ("as_bytes", "3kb", 3072),
        ("as_bytes", "2MB", 2 * 1024**2),
        ("as_bytes", "1gB", 1024**3),
        ("as_bytes", 7.9, 7),
        ("as_bytes", "", None),
        ("anything", "x", "x"),
    ],
)
def test_converters(convert, value, result):
    assert getattr(module, convert)(value) == result


@pytest.mark.parametrize(
    ("convert", "value"), [("as_bool", "perhaps"), ("as_seconds", 0), ("as_seconds", "-1"), ("as_seconds", "x"),
                           ("as_bytes", 0), ("as_bytes", "kb"), ("as_bytes", "1tb")]
)
def test_converters_refuse(convert, value):
    with pytest.raises(ValueError):
        getattr(module, convert)(value)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("resolver", "crystal-ball", "weald.config.resolver cannot be 'crystal-ball': must be one of thread"),
        ("resolver", None, "weald.config.resolver cannot be None: must be one of thread"),
        ("resolver", 5, "weald.config.resolver cannot be 5: must be one of thread"),
        ("threadpool", None, "cannot be None: must be a callable or where to import one from"),
        ("ares_timeout", "soon", "weald.config.ares_timeout cannot be 'soon': could not convert"),
        ("ares_ndots", -1, "weald.config.ares_ndots cannot be -1: must not be negative"),
        ("loop", "uring", "must be one of the backends of this build: libuv, libev"),
        ("happy_eyeballs_delay", 0, "must be a positive number of seconds"),
        ("threadpool_size", "ten", "weald.config.threadpool_size cannot be 'ten'"),
    ],
)
def test_a_wrong_value_says_what_would_be_right(name, value, says):
    with pytest.raises(ValueError) as caught:
        setattr(Config({}), name, value)
    assert says in str(caught.value)


def test_a_wrong_variable_is_named():
    with pytest.raises(ValueError, match="environment variable WEALD_LOOP is 'uring': must be one of the backends"):
        Config({"WEALD_LOOP": "uring"})
    config = Config({"WEALD_RESOLVER_TIMEOUT": "soon"})
    with pytest.raises(ValueError, match="environment variable WEALD_RESOLVER_TIMEOUT is 'soon'"):
        config.resolver_timeout  # noqa: B018


def test_an_unknown_name_is_an_error_that_lists_the_known():
    config = Config({})
    for use in (lambda: config.nonesuch, lambda: config.set("nonesuch", 1), lambda: setattr(config, "nonesuch", 1)):
        with pytest.raises(AttributeError, match="no setting 'nonesuch'; there are: loop, resolver"):
            use()


def test_all_are_listed(capsys):
    config = Config({"WEALD_THREADPOOL_SIZE": "3"})
    config.print_help()
    text = capsys.readouterr().out
    assert "threadpool_size: the most threads of a hub's pool\n    WEALD_THREADPOOL_SIZE, " in text
    assert "now 3\n" in text
    assert sorted(config.settings) == dir(config)
    assert all(f"{name}: " in text for name in config.settings)


def test_others_may_add_settings_and_variables():
    python(
        """
        from weald._base import config as module
        module.add_settings({"depth": module.Setting(1, int, "WEALD_DEPTH", "how deep", at_once=True)})
        environ = {"OLD_DEPTH": "4"}
        assert module.Config(environ).depth == 1
        module.add_variables({"depth": "OLD_DEPTH"})
        assert module.Config(environ).depth == 4
        environ["WEALD_DEPTH"] = "5"
        assert module.Config(environ).depth == 5
        """
    )


@pytest.mark.parametrize(
    ("value", "module", "source", "message"),
    [
        ("ares", "pycares", "raise ImportError('libcares.so.2: none')", "ares cannot be imported: libcares.so.2"),
        ("mine.Resolver", "mine", "import not_there", "mine.Resolver cannot be imported: No module named 'not_there'"),
        ("mine.Resolver", "mine", "from os import not_there", "mine.Resolver cannot be imported: cannot import name"),
        ("mine.sub.Resolver", "mine", "", "must be one of thread, dnspython, ares, block, a callable"),
        ("mine.Other", "mine", "", "must be one of thread, dnspython, ares, block, a callable"),
    ],
)
def test_why_a_resolver_cannot_be_imported(value, module, source, message, tmp_path):
    (tmp_path / f"{module}.py").write_text(source)
    python(
        f"""
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        import weald
        try:
            weald.config.resolver = {value!r}
        except ValueError as error:
            assert {message!r} in str(error), error
        else:
            raise SystemExit("no error")
        """
    )
