# The engine in a container, for DICOM routers and clusters; see docs/cohorts.md.
#   docker build -t sparseseg .
#   docker build -t sparseseg:cuda --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu126 .
FROM python:3.12-slim

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

WORKDIR /build
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY SparseSegSlicer/sparseseg SparseSegSlicer/sparseseg
RUN pip install --no-cache-dir --extra-index-url "$TORCH_INDEX" -c constraints.txt '.[cohort]' \
 && rm -rf /build/* \
 && useradd --uid 1000 --no-create-home --shell /usr/sbin/nologin sparseseg \
 && mkdir /models

# a router may start it as another user, whom the container does not know: what is written goes to /tmp
ENV HOME=/tmp USER=sparseseg NUMBA_CACHE_DIR=/tmp/numba PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /tmp
USER 1000:1000

# models lie in /models: mounted there, or copied in an image FROM this one
ENTRYPOINT ["sparseseg"]
CMD ["cohort", "mercure"]
