# The commands; scripts/ has what they do.  PYTHON=python3.13 picks another interpreter.
.PHONY: help run test check bench build clean
help:
	@echo "make run | test | check | bench | build | clean"
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
clean:
	rm -rf build .venv-* src/weald/_core/*.so
