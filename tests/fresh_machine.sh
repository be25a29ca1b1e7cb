#!/bin/sh
# The newcomer's first hour, by itself: clones what is committed here into an empty folder, with an empty home, and runs
# `make demo` and `make test` (or the targets named). Prints seconds and disk use. FRESH=DIR keeps the folder.
set -eu
here=$(git -C "$(dirname "$0")" rev-parse --show-toplevel)
if [ -n "${FRESH:-}" ]; then
    mkdir -p "$FRESH"
    [ -z "$(ls -A "$FRESH")" ] || { echo "$FRESH is not empty; name another FRESH=DIR" >&2; exit 1; }
    folder=$(cd "$FRESH" && pwd)
else
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
fi
mkdir "$folder/home"
git clone --quiet "$here" "$folder/hlbt"
cd "$folder/hlbt"
echo "commit $(git rev-parse --short HEAD) in $folder"
# Nothing of the caller's settings reaches it but how packages are fetched.
fresh() {
    env -i HOME="$folder/home" PATH="$PATH" LANG="${LANG:-C.UTF-8}" \
        $(env | grep -E '^((PIP|UV)_[A-Z_]+|https?_proxy|HTTPS?_PROXY|no_proxy|NO_PROXY|SSL_CERT_FILE|REQUESTS_CA_BUNDLE)=' | grep -v '^UV_CACHE_DIR=' || true) "$@"
}
used() { for place; do [ ! -e "$place" ] || du -sm "$place" | awk '{printf "%6d MB  %s\n", $1, $2}'; done; }
for target in ${*:-demo test}; do
    begun=$(date +%s)
    fresh make "$target"
    echo "--- make $target: $(($(date +%s) - begun)) s"
done
used .venv .git data_cache reports "$folder/home" "$folder"
