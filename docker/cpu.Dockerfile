# docker build -f docker/cpu.Dockerfile -t mmse:cpu . && docker run --rm mmse:cpu
FROM debian:12-slim
RUN apt-get update && apt-get install -y --no-install-recommends \
        g++ make python3-dev python3-venv && rm -rf /var/lib/apt/lists/*
WORKDIR /mmse
COPY . .
# The CPU build of torch; without this pip takes the one with CUDA libraries.
ENV PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu PIP_NO_CACHE_DIR=1
RUN make setup
ENV PATH=/mmse/.venv/bin:$PATH
CMD ["python", "tools/train.py", "configs/faster_rcnn_se_r50.py"]
