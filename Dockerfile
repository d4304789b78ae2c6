# Two stages: one that installs, and one that holds Python, hip, the libraries that they load, and nothing else: no
# shell, no package manager, no setuid file. `make image` builds it without a network, the same bytes each time.
# The base is for you to name, by digest, and has no default: python:3.11-slim-bookworm@sha256:…
ARG PYTHON_IMAGE

# hadolint ignore=DL3006
FROM ${PYTHON_IMAGE} AS build
# Set by `make image`, which mounts the wheels of the lock. Without them pip asks its index; the hashes hold either way.
ARG PIP_NO_INDEX
ARG PIP_FIND_LINKS
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_COMPILE=1 PYTHONDONTWRITEBYTECODE=1 PYTHONHASHSEED=0 \
    SOURCE_DATE_EPOCH=315532800
WORKDIR /build
COPY requirements/core.txt requirements/build.txt requirements/
RUN python3 -m venv tools \
 && tools/bin/pip install --require-hashes --requirement requirements/build.txt \
 && python3 -m venv --without-pip /opt/hip \
 && tools/bin/pip --python /opt/hip/bin/python install --require-hashes --requirement requirements/core.txt
COPY pyproject.toml README.md LICENSE ./
COPY proxy proxy
RUN tools/bin/pip wheel --no-deps --no-build-isolation --wheel-dir wheels . \
 && tools/bin/pip --python /opt/hip/bin/python install --no-deps --no-index wheels/*.whl
COPY .ci/rootfs.py .ci/bill.py ./
RUN python3 rootfs.py /opt/hip /rootfs && python3 bill.py /opt/hip /rootfs && mkdir /state && mkdir -m 0700 /state/hip

FROM scratch
COPY --from=build /rootfs /
# Where the journal, its keys and the spans go; a volume mounted here is the user's own from the start.
COPY --from=build --chown=65532:65532 /state /var/lib
LABEL org.opencontainers.image.title="hip" \
      org.opencontainers.image.description="The hardened inference proxy" \
      org.opencontainers.image.licenses="Apache-2.0"
# onnxruntime sends telemetry from 1.29 on, unless this stands before its first import.
ENV ORT_DISABLE_TELEMETRY=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt \
    LANG=C.UTF-8 \
    HOME=/var/lib/hip \
    PATH=/opt/hip/bin
# Numbers: Kubernetes cannot verify runAsNonRoot of a name.
USER 65532:65532
WORKDIR /etc/hip
EXPOSE 8443
STOPSIGNAL SIGTERM
# Alive, not ready: whoever restarts what is unhealthy must not do so because an identity provider is down.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
    CMD ["/opt/hip/bin/python", "-Ic", "import http.client as h, sys; c = h.HTTPConnection('127.0.0.1', 9090, timeout=2); c.request('GET', '/healthz'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["/opt/hip/bin/hip"]
CMD ["serve", "--config", "/etc/hip/hip.yaml"]
