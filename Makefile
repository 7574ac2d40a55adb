# The commands; scripts/ has what they do.  PYTHON=python3.13 picks another interpreter.
.PHONY: help test check build clean
help:
	@echo "make build | test | check | clean"
build:
	scripts/bootstrap
test:
	scripts/test
check:
	scripts/check
clean:
	rm -rf build .venv-* src/weald/_core/*.so
