#!/bin/sh
# runner.sh ORIGINAL TESTS ARGUMENTS...: runs the tests of one mutant up to the first failure. Those
# of the changed module come first, because they are the likeliest to fail. ORIGINAL is src/ without
# the mutant.
original=$1
shift

# A mutant may loop for ever or fill the memory. Processor time does not depend on what else the
# machine does.
ulimit -t 30
ulimit -v 4000000

# --fail-fast is unstable in libtest.
export RUSTC_BOOTSTRAP=1

changed=$(diff -rq "$original" src | sed -n 's/^Files .* and src\/\(.*\)\.rs differ$/\1/p' | head -n 1)
if [ -n "$changed" ]; then
    # model/policy/rule -> model::policy
    module=$(printf '%s' "$changed" | sed -E 's|/mod$||; s|^([^/]*/[^/]*)/.*|\1|; s|/|::|g')
    "$@" -Z unstable-options --fail-fast "$module::" || exit
fi
exec "$@" -Z unstable-options --fail-fast
