# Two images. Sources come last, so that a change of ours never installs a package again.
#   docker build --target server   -t tidegate-server .      serves models: no torch, no compiler, not root
#   docker build --target training -t tidegate-training .    fits models and exports them
# Needs BuildKit of Docker 25 or newer. Where packages come from can be said with pip's own names, as
# --build-arg PIP_EXTRA_INDEX_URL=..., which an index with a small CPU build of torch makes well worth it.

FROM python:3.11-slim AS pip
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_FIND_LINKS
ARG PIP_TRUSTED_HOST
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends binutils && rm -rf /var/lib/apt/lists/*
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --quiet 'pip>=25.1' && python -m venv --without-pip /opt/venv
COPY pyproject.toml .


FROM pip AS server-packages
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/venv install --quiet --group server --group tracing
# Half of what was installed is tests, headers, converters with the algebra that they need, debug symbols, and a second
# onnxruntime for programs in C, none of which a server opens. Libraries in *.libs are rewritten by their wheels: strip breaks such.
RUN cd /opt/venv/lib/python3*/site-packages \
 && rm -rf onnx/backend/test onnx/test onnxruntime/transformers onnxruntime/quantization onnxruntime/tools \
      onnxruntime/capi/libonnxruntime.so.* sympy mpmath \
 && find . -type d -name tests -prune -exec rm -rf {} + \
 && find . -type f \( -name '*.pyi' -o -name '*.pyx' -o -name '*.h' -o -name '*.c' -o -name '*.cc' \) -delete \
 && find . -type f -name '*.so' -not -path '*.libs/*' -exec strip --strip-unneeded {} +


FROM pip AS training-packages
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/venv install --quiet --group training
# Headers and tests are for those who build torch or compile against it.
RUN cd /opt/venv/lib/python3*/site-packages/torch && rm -rf include share/cmake test bin/*[Tt]est* bin/protoc*


FROM python:3.11-slim AS base
# Nothing writes byte code at run time: pip and compileall have, and the file system may be read-only.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    ORT_DISABLE_TELEMETRY=1
LABEL org.opencontainers.image.vendor="Tidegate" \
      org.opencontainers.image.licenses="Apache-2.0"
STOPSIGNAL SIGTERM
WORKDIR /app


FROM base AS server
LABEL org.opencontainers.image.title="tidegate-server" \
      org.opencontainers.image.description="Serves recurrent ONNX models (RNN, LSTM, GRU) as gRPC streams"
COPY --from=server-packages /opt/venv /opt/venv
COPY LICENSE ./
COPY tidegate tidegate
COPY stepgraph stepgraph
COPY server server
# For operators: `docker exec CONTAINER tidegate sequences`, from where the server lets a client administer.
COPY --chmod=755 <<'SCRIPT' /usr/local/bin/tidegate
#!/bin/sh
PYTHONPATH=/app exec python -m tidegate.cli "$@"
SCRIPT
# What there is to serve if nothing is mounted over it.
COPY models /models
# A checkout made under a strict umask must be readable here all the same.
RUN chmod -R a+rX /app /models && python -m compileall -q /app && install -d -m 700 -o 10001 -g 10001 /cache /state
# It listens on every interface, for which it wants TLS, or TIDEGATE_INSECURE=yes: see docs/secure.md.
ENV TIDEGATE_HOST=0.0.0.0 \
    TIDEGATE_PORT=50051 \
    TIDEGATE_MODELS=/models \
    TIDEGATE_CACHE=/cache \
    TIDEGATE_STORE=sqlite:/state/sequences.sqlite
USER 10001:10001
# What outlives the container: the checkpoints of sequences, unless TIDEGATE_STORE says otherwise.
VOLUME /state
EXPOSE 50051
# The command waits for the server for 3 s itself; the rest is for a machine that is so busy that Python takes long to start.
HEALTHCHECK --interval=15s --timeout=15s --start-period=60s --start-interval=1s \
    CMD ["python", "-m", "server.operations.healthcheck"]
ENTRYPOINT ["python", "-m", "server"]


FROM base AS training
LABEL org.opencontainers.image.title="tidegate-training" \
      org.opencontainers.image.description="Fits recurrent networks and exports them as ONNX models for Tidegate"
COPY --from=training-packages /opt/venv /opt/venv
# Whoever owns the model repository is who trains: what lands there then belongs to the same user on the host, whatever
# their number is. Started as another user than root (--user), it trains as that user.
COPY --chmod=755 <<'SCRIPT' /usr/local/bin/as-owner
#!/bin/sh
set -eu
if [ "$(id -u)" = 0 ]; then
  owner=$(stat -c %u:%g models)
  [ "$(stat -c %u:%g runs)" = "$owner" ] || chown "$owner" runs
  set -- setpriv --reuid="${owner%:*}" --regid="${owner#*:}" --clear-groups -- "$@"
fi
exec "$@"
SCRIPT
COPY LICENSE ./
# what a column is and what a calendar says, which the client shares; numpy is all that it needs
COPY tidegate tidegate
COPY training training
RUN mkdir models runs && chown 10001:10001 models runs && chmod -R a+rX /app && python -m compileall -q /app
# That user has no name and no home here, and both torch and matplotlib ask for them.
ENV HOME=/tmp USER=tidegate
ENTRYPOINT ["as-owner", "python", "-m", "training"]
CMD ["--help"]
