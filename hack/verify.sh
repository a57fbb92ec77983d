#!/usr/bin/env bash
# All that can be judged without running the product: style, types, layers, drift of generated and
# derived files. Runs every check even after one has failed; `make lint` calls it.
set -uo pipefail
cd "$(dirname "$0")/.."
bin=.venv/bin
failed=()

check() { # check NAME COMMAND...: one line with its time; what it wrote only when it fails
    local name=$1 started=$EPOCHREALTIME output status=0
    shift
    output=$("$@" 2>&1) || status=$?
    local took_ms=$(((${EPOCHREALTIME/[.,]/} - ${started/[.,]/}) / 1000))
    printf '%-4s %6d.%01d s  %s\n' "$([[ $status == 0 ]] && echo ok || echo FAIL)" \
        $((took_ms / 1000)) $((took_ms % 1000 / 100)) "$name"
    if [[ $status != 0 ]]; then
        failed+=("$name")
        printf '%s\n' "$output" | sed 's/^/       /'
    fi
}

check "ruff check" $bin/ruff check --quiet .
check "ruff format" $bin/ruff format --check --quiet .
check "mypy" $bin/mypy operator hack tests
check "lint-imports" env PYTHONPATH=operator $bin/lint-imports --no-logo --no-cache
for script in hack/verify-*; do
    check "$script" "$script"
done

if [[ ${#failed[@]} -gt 0 ]]; then
    printf 'failed: %s\n' "$(IFS=,; echo "${failed[*]}")" >&2
    exit 1
fi
