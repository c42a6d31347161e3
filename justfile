# `./dev RECIPE` (or `just RECIPE`): each recipe makes the environment ready first.

set positional-arguments

export PATH := justfile_directory() / ".venv/bin" + ":" + env_var("PATH")

# List the recipes
[private]
default:
    @"{{ just_executable() }}" --justfile "{{ justfile() }}" --list

# Make .venv and install the project with its tools, when needed
setup:
    @./dev setup

# Run plugins in the sandbox and show what each tried, what happened and what it cost
demo *args: setup
    @cloche demo "$@"

# Run the tests; arguments go to pytest
test *args: setup
    @python -m pytest -n auto --dist worksteal "$@"

# Format, lint, types, import direction, WIT packages, reference pages
check: setup
    #!/bin/sh
    status=0
    step() { echo "check: $*"; "$@" || { status=1; echo "check: FAILED: $*"; }; }
    step ruff format --check
    step ruff check
    step mypy --strict host native-accel guests/sdk tests
    step lint-imports --no-cache --no-logo
    step python docs/reference.py --check
    step python -m pytest -q tests/contract/test_wit_packages.py
    exit $status

# Only the hostile guests and inputs
adversarial *args: setup
    @python -m pytest -n auto --dist worksteal -m adversarial "$@"

# Drive mutated components through hosts in child processes: 20,000, or --count N; --first N begins elsewhere
mutants *args: setup
    @cd tests && python -m support.mutants "$@"

# Have hosts read hostile frames from a worker that is none: 500,000, or --count N; --first N begins elsewhere
frames *args: setup
    @cd tests && python -m support.frames "$@"

# Kill workers under load and compare what their callers were told with what happened: 100 times, or --count N
kills *args: setup
    @cd tests && python -m support.kills "$@"

# Build every guest under guests/ to a component
guests: setup
    @for manifest in guests/*/plugin.toml; do cloche build "$(dirname "$manifest")" || exit; done

# Run the benchmarks, or only NAME with its arguments; they report and assert nothing
bench name="" *args: setup
    #!/bin/sh
    set -eu
    if [ -n "$1" ]; then
        script=tests/bench/${1%.py}.py
        shift
        exec python "$script" "$@"
    fi
    for script in tests/bench/*.py; do python "$script"; done

# Print what plugins in each language make of each WIT type, and what is refused
conformance: setup
    @cd tests && python -m support.conformance

# Write the reference pages (docs/errors.md, the synopses in docs/cli.md, docs/values.md) anew
docs: setup
    python docs/reference.py
    cd tests && python -m support.conformance > ../docs/values.md

# Build the wheel into dist/
build: setup
    python -m build --wheel --no-isolation
