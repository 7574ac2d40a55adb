"""Django's settings for test_integrations_celery_backends.py: results in the SQLite database DATABASE."""

import os

SECRET_KEY = "no secret"
INSTALLED_APPS = ["django.contrib.contenttypes", "django_celery_results"]
ENGINE = os.environ.get("ENGINE", "django.db.backends.sqlite3")
DATABASES = {"default": {"ENGINE": ENGINE, "NAME": os.environ["DATABASE"],
                         "OPTIONS": {"timeout": 60}}}
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
