# Shortcuts for the commands in scripts/.  PYTHON=python3.13 selects another interpreter.
.PHONY: help run test check bench build wheels clean
help:
	@echo "make run | test | check | bench | build | wheels | clean"
build:
	scripts/bootstrap
run:
	scripts/run
test:
	scripts/test
check:
	scripts/check
bench:
	benchmarks/run all
wheels:
	scripts/wheels
clean:
	rm -rf build dist .venv-* .bench-* .celery-tests .*_cache .hypothesis src/*.egg-info
	find src \( -name '*.so' -o -name '*.c' \) -delete
	find . -name __pycache__ -prune -exec rm -rf {} +
