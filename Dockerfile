# One file, four images: gateway, worker, export, triton. `docker build --target gateway .`
# Built by BuildKit and by the older builder alike, so nothing here needs a frontend from a registry.
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm
ARG TRITON_IMAGE=nvcr.io/nvidia/tritonserver:26.08-py3

# What to install, out of pyproject.toml: a change elsewhere in that file leaves the layers below as they are.
FROM ${PYTHON_IMAGE} AS requirements
# The extras of pyproject that gateway and worker get, comma separated.
ARG EXTRAS="s3"
WORKDIR /requirements
COPY pyproject.toml constraints.txt ./
RUN python3 -c "import tomllib; \
table = tomllib.load(open('pyproject.toml', 'rb')); \
extras = table['project']['optional-dependencies']; \
chosen = [name for name in '${EXTRAS}'.split(',') if name]; \
base = table['project']['dependencies'] + [line for name in chosen for line in extras[name]]; \
print(*base, sep='\n', file=open('base.txt', 'w')); \
print(*extras['export'], sep='\n', file=open('export.txt', 'w')); \
print(*table['build-system']['requires'], sep='\n', file=open('build.txt', 'w'))" \
 && rm pyproject.toml

# The virtual environment of gateway and worker, without our code and without pip.
FROM ${PYTHON_IMAGE} AS dependencies
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python3 -m venv --without-pip /opt/vqd
COPY --from=requirements /requirements /requirements
# The packages' own tests, most of them numpy's, are 16 MB.
RUN python3 -m pip --python /opt/vqd/bin/python install \
    -c /requirements/constraints.txt -r /requirements/base.txt \
 && find /opt/vqd -type d -name tests -prune -exec rm -r {} +

# Our code alone, laid out to be copied over the environment: a code change makes one small layer.
FROM dependencies AS package
RUN python3 -m venv /opt/build \
 && /opt/build/bin/pip install -c /requirements/constraints.txt -r /requirements/build.txt
WORKDIR /source
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY service service
COPY vqd vqd
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheel . \
 && python3 -m pip --python /opt/vqd/bin/python install --no-deps --no-index --prefix /package /wheel/*.whl \
 && cp -r /package /slim \
 && rm -r /slim/lib/python3.11/site-packages/service/reference /slim/lib/python3.11/site-packages/service/lab

FROM ${PYTHON_IMAGE} AS runtime
RUN useradd --uid 10001 --user-group --no-log-init --no-create-home --home-dir /tmp --shell /usr/sbin/nologin vqd \
 && install --directory --owner vqd --group vqd /models /run/secrets/vqd
ENV PATH=/opt/vqd/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    VQD_REPOSITORY=/models
# Version and revision come with a release's command (docs/operations.md): here they would remake the layers below.
LABEL org.opencontainers.image.licenses=Apache-2.0 org.opencontainers.image.vendor=vqd
WORKDIR /tmp
ENTRYPOINT ["vqd"]

FROM runtime AS slim
COPY --from=dependencies /opt/vqd /opt/vqd
COPY --from=package /slim /opt/vqd
# Every address of the container. There the gateway asks for an API key, unless VQD_ALLOW_UNAUTHENTICATED=true.
ENV VQD_HOST=0.0.0.0
USER 10001:10001

FROM slim AS gateway
LABEL org.opencontainers.image.title=vqd-gateway
ENV VQD_PORT=8080
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-m", "service.local.probe", "http://127.0.0.1:${VQD_PORT}/healthz"]
CMD ["gateway"]

FROM slim AS worker
LABEL org.opencontainers.image.title=vqd-worker
ENV VQD_WORKER_METRICS_PORT=9100
EXPOSE 9100
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-m", "service.local.probe", "http://127.0.0.1:${VQD_WORKER_METRICS_PORT}/healthz"]
CMD ["worker"]

# torch, only to turn a model folder into what Triton serves.
FROM dependencies AS export-dependencies
# The index of CPU builds: from PyPI alone, torch brings gigabytes of CUDA libraries.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN python3 -m pip --python /opt/vqd/bin/python install \
    --extra-index-url "${TORCH_INDEX}" -c /requirements/constraints.txt -r /requirements/export.txt

FROM runtime AS export
LABEL org.opencontainers.image.title=vqd-export
COPY --from=export-dependencies /opt/vqd /opt/vqd
COPY --from=package /package /opt/vqd
USER 10001:10001
# It runs once and ends; its exit status is its health.
HEALTHCHECK NONE
CMD ["export", "--backend", "pytorch"]

FROM ${TRITON_IMAGE} AS triton
LABEL org.opencontainers.image.title=vqd-triton org.opencontainers.image.vendor=vqd
COPY service/local/probe.py /opt/vqd/probe.py
RUN install --directory --owner 10001 --group 10001 /models
# A home that can be written with a read-only root: CUDA and torch keep caches there.
ENV HOME=/tmp
USER 10001:10001
EXPOSE 8000 8001 8002
# Ready means every model loaded and warmed. Whether they still answer, the worker asks with real inferences.
HEALTHCHECK --interval=5s --timeout=5s --start-period=180s --retries=3 \
    CMD ["python3", "/opt/vqd/probe.py", "http://127.0.0.1:8000/v2/health/ready"]
CMD ["tritonserver", "--model-repository=/models", "--disable-auto-complete-config"]
