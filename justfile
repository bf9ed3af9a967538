# The commands of this repository, by name. Each is a script or one line; CI runs `scripts/test`.
# With just: just NAME. Without: copy the line.

set shell := ["bash", "-euo", "pipefail", "-c"]

# what there is to run
default:
    @just --list

# install what is needed to build, run and test
setup:
    scripts/setup --tools

# every check that CI runs
test *STEPS:
    scripts/test {{STEPS}}

# format the code
fmt:
    cargo fmt

# the checks that need no test to run
lint:
    scripts/test scripts fmt boundaries clippy deny

# the documentation, as pages under the target directory
doc:
    scripts/test doc

# show the main job on the real tree /etc
quickstart *OPTIONS:
    scripts/quickstart {{OPTIONS}}

# the whole system in one process; its data stays in the user's data directory
up *OPTIONS:
    source scripts/env && cargo run --quiet --release --package roam -- up {{OPTIONS}}

# measure Roam beside its peers on this machine; a system that runs elsewhere is measured by `roam bench`
bench *OPTIONS:
    scripts/bench {{OPTIONS}}

# the whole system in containers: three NATS servers, two access servers, two storage replicas
containers:
    scripts/images
    $(command -v docker-compose || echo docker compose) up --detach

# roam files of real applications (Chromium, documents, contacts). Installs Debian packages: run it as root
real-apps:
    scripts/real-apps
