#!/usr/bin/env bash
# Draws the README's picture of a report: an evaluation of the penguins, in Chromium, light and dark.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

npm run --silent build:ts
node dist-dev/examples/scores.js
(cd examples/out && node ../../dist/cli/main.js eval logits.npy labels.npy --class-names species.txt --html report.html)

# Of Chromium's colour schemes 0 is dark and 1 is light.
for scheme in dark:0 light:1; do
  "${CHROMIUM:-chromium}" --headless --no-sandbox --disable-gpu --hide-scrollbars --window-size=1120,1010 \
    --blink-settings=preferredColorScheme="${scheme#*:}" --screenshot="docs/report_${scheme%:*}.png" \
    "file://$PWD/examples/out/report.html" 2>/dev/null
done
ls -l docs/report_*.png
