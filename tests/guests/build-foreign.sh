#!/bin/sh
# Builds the handlers that other tools make: Python (componentize-py) and JavaScript
# (componentize-qjs), in typed form, into target/guests/foreign.
#
#     tests/guests/build-foreign.sh [python] [js]
#
# The tools come from their package managers into a folder under target/. Ends with 0 if all that
# was asked for was built, with 77 if a package manager is missing or cannot reach its registry
# (what is not run is named), with 1 if a build failed.
set -u

componentize_py=0.25.1
componentize_qjs=0.4.5

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
out=$root/target/guests/foreign
tools=$out/tools
mkdir -p "$tools" || exit 1
result=0

# Notes that something cannot run here.
not_run() {
    echo "not run: $1" >&2
    if [ "$result" -eq 0 ]; then result=77; fi
}

# Notes that something went wrong.
failed() {
    echo "failed: $1" >&2
    result=1
}

# Whether a component is there and younger than all it is made of.
fresh() {
    [ -f "$1" ] && [ -z "$(find "$2" "$root/wit" "$here/build-foreign.sh" -newer "$1" -print)" ]
}

python() {
    if fresh "$out/python.wasm" "$here/python"; then return; fi
    venv=$tools/python-$componentize_py
    if [ ! -x "$venv/bin/componentize-py" ]; then
        if ! command -v python3 >/dev/null; then
            not_run "python: there is no python3"
            return
        fi
        if ! python3 -m venv "$venv" >"$tools/python.log" 2>&1 ||
            ! "$venv/bin/pip" install --quiet "componentize-py==$componentize_py" \
                >>"$tools/python.log" 2>&1; then
            rm -rf "$venv"
            not_run "python: cannot install componentize-py $componentize_py, see $tools/python.log"
            return
        fi
    fi
    if (cd "$here/python" &&
        "$venv/bin/componentize-py" -d "$root/wit" -w interceptor-handler componentize app \
            -o "$out/python.wasm.tmp") >"$tools/python.log" 2>&1; then
        mv "$out/python.wasm.tmp" "$out/python.wasm" && echo "built $out/python.wasm"
    else
        cat "$tools/python.log" >&2
        failed "python"
    fi
}

js() {
    if fresh "$out/js.wasm" "$here/js"; then return; fi
    modules=$tools/js-$componentize_qjs
    if [ ! -x "$modules/node_modules/.bin/componentize-qjs" ]; then
        if ! command -v npm >/dev/null; then
            not_run "js: there is no npm"
            return
        fi
        mkdir -p "$modules"
        if ! (cd "$modules" && npm install --no-fund --no-audit --no-save --prefix . \
            "componentize-qjs@$componentize_qjs") >"$tools/js.log" 2>&1; then
            rm -rf "$modules"
            not_run "js: cannot install componentize-qjs $componentize_qjs, see $tools/js.log"
            return
        fi
    fi
    if "$modules/node_modules/.bin/componentize-qjs" --wit "$root/wit" --js "$here/js/app.js" \
        -n interceptor-handler --sync -o "$out/js.wasm.tmp" >"$tools/js.log" 2>&1; then
        mv "$out/js.wasm.tmp" "$out/js.wasm" && echo "built $out/js.wasm"
    else
        cat "$tools/js.log" >&2
        failed "js"
    fi
}

if [ $# -eq 0 ]; then set -- python js; fi
for language in "$@"; do
    case $language in
    python) python ;;
    js) js ;;
    *)
        echo "unknown language \`$language\`: python or js" >&2
        exit 1
        ;;
    esac
done
exit "$result"
