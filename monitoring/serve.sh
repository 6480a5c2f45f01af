#!/bin/sh
# Starts the collector in its container. Secrets come as files there, and `sluice serve` reads SLUICE_TOKEN.
set -eu
if [ -n "${SLUICE_TOKEN_FILE:-}" ]; then
  SLUICE_TOKEN="$(cat "$SLUICE_TOKEN_FILE")"
  export SLUICE_TOKEN
fi
exec node "$(dirname "$0")/dist/cli/main.js" serve "$@"
