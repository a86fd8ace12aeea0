# pmlm for CPUs. The demo, with its run folder in ./runs of the host and the models in a volume:
#   docker build --tag pmlm .
#   docker run --rm --volume pmlm-cache:/cache --volume "$PWD:/work" --user "$(id -u):$(id -g)" pmlm demo
FROM python:3.12-slim

# PyTorch's CPU build comes first: the default build has CUDA in it. It changes rarely, so it is a layer of its own.
COPY constraints.txt /tmp/
RUN pip install --no-cache-dir --constraint /tmp/constraints.txt torch --index-url https://download.pytorch.org/whl/cpu

COPY pyproject.toml setup.cfg README.md LICENSE /src/
COPY pmlm_env /src/pmlm_env
COPY agents /src/agents
RUN pip install --no-cache-dir --constraint /tmp/constraints.txt "/src[parquet,xlsx,zh]" \
    && rm -r /src /tmp/constraints.txt \
    && mkdir --mode 1777 /cache

ENV PMLM_CACHE=/cache \
    HOME=/tmp \
    OMP_WAIT_POLICY=PASSIVE
WORKDIR /work
ENTRYPOINT ["pmlm"]
CMD ["--help"]
