"""Django's SQLite, its connections behind a proxy: the database backend of docs/drivers.md, for celery_django.py."""

import sqlite3

from django.db.backends.sqlite3 import base

from weald.threadpool import Proxy, default


class DatabaseWrapper(base.DatabaseWrapper):
    def get_new_connection(self, conn_params):
        connect = super().get_new_connection
        return Proxy(default().apply(connect, (conn_params,)), autowrap=[sqlite3.Cursor])
