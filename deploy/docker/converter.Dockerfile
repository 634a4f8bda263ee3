# rkllm-convert, with Rockchip's toolkit where its wheel lies in deploy/docker/toolkit. For x86_64 only, as the toolkit is.
# The build context is the repository's root; README.md beside this file has the commands.

FROM python:3.12.13-slim-bookworm AS wheels
WORKDIR /source
COPY constraints.txt ./
RUN python -m venv /build \
    && /build/bin/python -m pip install --no-cache-dir --constraint constraints.txt hatchling
COPY packages/rkllm-facts packages/rkllm-facts
COPY packages/rkllm-converter packages/rkllm-converter
RUN /build/bin/python -m pip wheel --no-cache-dir --no-build-isolation --no-deps --wheel-dir /wheels \
        ./packages/rkllm-facts ./packages/rkllm-converter

# The virtual environments have no pip: only these stages install into them. Wheels are mounted, so no layer holds them.
FROM python:3.12.13-slim-bookworm AS environment
RUN --mount=type=bind,from=wheels,source=/wheels,target=/wheels \
    --mount=type=bind,source=constraints.txt,target=/constraints.txt \
    python -m venv --without-pip /opt/rkllm-converter \
    && python -m pip --python /opt/rkllm-converter/bin/python install --no-cache-dir \
        --constraint /constraints.txt /wheels/*.whl \
    && python -m pip --python /opt/rkllm-converter/bin/python check

# The toolkit pins versions of its own, so it has an environment of its own. It is always installed by its file: what
# the public index calls rkllm is something else. Without a wheel the environment stays empty, and rkllm-convert says
# what is missing when it is asked for a conversion.
FROM python:3.12.13-slim-bookworm AS toolkit
# PyTorch for the CPU alone: the public index has the one for CUDA, of some gigabytes. Empty for that one.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# setuptools: 1.2.1 was seen to want pkg_resources, which newer ones lack. The toolkit keeps files in its own folder while
# it converts (issues 308 and 386 of airockchip/rknn-llm), so whoever runs it may write there.
# Rockchip asks for this on Python 3.12; otherwise a dependency wants to compile for CUDA.
ENV BUILD_CUDA_EXT=0
RUN --mount=type=bind,source=deploy/docker/toolkit,target=/toolkit \
    [ "$(uname -m)" = x86_64 ] \
    || { echo "Rockchip's toolkit is for x86_64 only: build with --platform linux/amd64." >&2; exit 1; } \
    && python -m venv --without-pip /opt/rkllm-toolkit \
    && set -- /toolkit/rkllm_toolkit-*.whl \
    && if [ $# -gt 1 ]; then echo "Leave one wheel in deploy/docker/toolkit, there are: $*" >&2; exit 1; fi \
    && if [ -e "$1" ]; then \
        python -m pip --python /opt/rkllm-toolkit/bin/python install --no-cache-dir \
            ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} 'setuptools<81' "$1" \
        && find /opt/rkllm-toolkit/lib -type d -path '*/site-packages/rkllm' -exec chmod -R a+w {} +; \
    else \
        echo "There is no wheel of the toolkit in deploy/docker/toolkit: this image cannot convert." >&2; \
    fi

FROM python:3.12.13-slim-bookworm AS converter
# Whoever runs it by --user may write these; a volume takes owner and mode over from them.
RUN useradd --uid 1000 --user-group --no-log-init --home-dir /tmp --no-create-home --shell /usr/sbin/nologin converter \
    && install -d -m 1777 /models /var/cache/huggingface
COPY --from=toolkit /opt/rkllm-toolkit /opt/rkllm-toolkit
COPY --from=environment /opt/rkllm-converter /opt/rkllm-converter
# HOME and LOGNAME, since a user given by --user has no entry in /etc/passwd.
ENV PATH=/opt/rkllm-converter/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    LOGNAME=converter \
    HF_HOME=/var/cache/huggingface \
    RKLLM_TOOLKIT_PYTHON=/opt/rkllm-toolkit/bin/python
USER 1000:1000
WORKDIR /models
# A conversion ends by itself and says by its exit code how: there is nothing to ask in between.
HEALTHCHECK NONE
ENTRYPOINT ["rkllm-convert"]
CMD ["--help"]
