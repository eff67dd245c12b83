#!/bin/sh
# May this mail go?
#
#   check.sh tenant=s07 segment=lapsed stream=marketing 'key=<1@shop.example>'
#
# Ends with 0: send it. Ends with 75, the code for "try again later": it is held, and the gate's answer is on standard
# output. No answer within 0.2 s, or none that makes sense, means send; why is on standard error. A key of the gate's stands
# in MAILVANE_KEY.
gate=${MAILVANE_GATE:-http://127.0.0.1:8026}

for label; do
  shift
  set -- "$@" --data-urlencode "$label"
done

# A proxy that the environment names is for the world outside, not for the gate.
# The key goes by standard input, since everybody on the machine sees arguments.
answer=$(
  printf '%s\n' "${MAILVANE_KEY:+header = \"Authorization: Bearer $MAILVANE_KEY\"}" |
    curl --config - --silent --show-error --fail --noproxy '*' --max-time 0.2 --get "$@" "$gate/v1/check"
) || exit 0

# Quotes inside a text are escaped in JSON, so these can only be the member itself.
case $answer in
  *'"answer":"held"'* | *'"answer": "held"'*)
    printf '%s\n' "$answer"
    exit 75
    ;;
esac
exit 0
