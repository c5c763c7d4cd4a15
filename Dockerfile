# syntax=docker/dockerfile:1
# A static server on an empty image. Build: docker build -t ws-cluster .
# Run:   docker run --rm -p 8812:8812 -p 8912:8912 --security-opt seccomp=deploy/seccomp/ws-cluster.json ws-cluster
# io_uring needs that profile: Docker's own forbids it, and then the node says so once and uses epoll.
# `make image` does these steps without Docker, and runs what they make.

# Has gcc and make (jemalloc) and the certificates.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# The names of functions stay, for profiles and reports. With --build-arg DEBUG_INFO=--compress-debug-sections their lines, and
# those that were inlined, do too, and the image is twice as large.
ARG DEBUG_INFO=--strip-debug
# Static against glibc: resolving names works (its files and dns back-ends are built in), and no libc has to be shipped.
# Random numbers by the system call: a static program does not find the C library's function, and would need /dev/urandom.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    RUSTFLAGS='-Cforce-frame-pointers=yes -Ctarget-feature=+crt-static --cfg getrandom_backend="linux_getrandom"' \
    cargo build --release --locked --bin ws-cluster --target "$(rustc -vV | sed -n 's/^host: //p')" && \
    mkdir -p /image/bin /image/etc/ssl/certs /image/data && \
    cp target/*/release/ws-cluster /image/bin/ && \
    objcopy "$DEBUG_INFO" /image/bin/ws-cluster && \
    cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ && \
    echo 'ws-cluster:x:10001:10001::/data:/bin/false' > /image/etc/passwd && \
    echo 'ws-cluster:x:10001:' > /image/etc/group && \
    chown 10001:10001 /image/data

FROM scratch
COPY --from=build /image/ /
USER 10001:10001
WORKDIR /data
# WebSocket, HTTP API. The operators' listeners stay on loopback unless they are given a token.
EXPOSE 8812 8912
STOPSIGNAL SIGTERM
# No HEALTHCHECK: it would need a program in the image that asks. An orchestrator asks /live and /ready over HTTP.
ENTRYPOINT ["/bin/ws-cluster"]
