# Habits, by name. The gate itself is tests/run, which needs no just.

_list:
    @just --list --unsorted

# Format the sources.
fmt:
    cargo fmt

# What the compiler and clippy think, as strictly as the gate.
lint:
    cargo fmt --check
    cargo clippy --locked --all-targets -- -D warnings

# The one gate: installs what the tests need, checks and runs everything.
test:
    tests/run

# A rotation of several throw-away hosts on this machine.
demo:
    cargo run --release -- demo

# What whole runs cost with 200 to 2,000 hosts; give other numbers as arguments. Takes minutes.
bench-fleet *NUMBERS:
    cargo bench --bench fleet -- {{NUMBERS}}

# keyswap beside its peers on the same hosts (ssh, Ansible, Mitogen, pyinfra). Needs root on a Debian; takes long.
bench-peers *OPTIONS:
    benches/peers/run {{OPTIONS}}

# What each of keyswap's requests starts on its host: forks, programs, syncs. Needs root.
bench-forks:
    benches/peers/forks

# Dependencies: licences, bans, sources, and the advisories, whose database comes from the network. Weekly.
deny:
    cargo deny --locked check

# The schemas for editors, as the program says them.
schemas:
    for kind in playbook inventory identity; do cargo run --quiet -- schema "$kind" >"schemas/$kind.json"; done

# Whether a release could be made: clean, told, allowed, tested, reproducible. Takes long.
release-check:
    tests/release
