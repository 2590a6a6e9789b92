# Daily commands (https://just.systems). tests/run.sh runs everything; CI calls nothing else.

features := "--locked --features kubernetes"

# List the commands.
default:
    @just --list

# Build all programs for debugging.
build:
    cargo build {{features}} --bins

# Check format and lints.
lint:
    cargo fmt --check
    cargo clippy {{features}} --all-targets -- -D warnings

# Run unit tests whose names contain a word.
unit filter="":
    cargo test {{features}} --lib {{filter}}

# Run one test binary, such as `just test hook_contract`.
test name filter="":
    cargo test {{features}} --test {{name}} {{filter}}

# Run privileged tests whose names contain a word, as root.
privileged filter="":
    cargo test {{features}} --test privileged -- --ignored --test-threads=2 {{filter}}

# Check the documents: examples, links, language.
documents:
    cargo test {{features}} --lib examples
    cargo test {{features}} --test documents --test prose --test development

# Build the documents' site into target/book.
site:
    tests/site.sh

# Open a shell in a fresh virtual machine, as root.
vm:
    tests/vm/by-hand.sh
