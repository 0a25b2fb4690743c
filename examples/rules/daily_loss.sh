#!/bin/sh
# Print each leg that has lost more today than a limit: examples/rules/daily_loss.sh 200
#
# It needs jq. The last token is kept in a file, so that after a restart nothing is left out.
set -eu
limit="${1:?Name the limit, for example 200}"
token_file="${TOKEN_FILE:-data/daily_loss.token}"
follow="${POSITION_SYNC:-.venv/bin/position-sync} follow --since $(cat "$token_file" 2>/dev/null || echo now)"

$follow | jq --unbuffered --raw-output --argjson limit "$limit" '
  if .token then "token \(.token)"
  elif .daily_pnl != null and .daily_pnl < -$limit
  then "\(.timestamp) \(.account) \(.symbol) \(.conid): \(.daily_pnl) today, a look is due"
  else empty end' |
  while read -r first rest; do
    case "$first" in
    token) printf '%s' "$rest" >"$token_file.new" && mv "$token_file.new" "$token_file" ;;
    *) printf '%s %s\n' "$first" "$rest" ;;
    esac
  done
