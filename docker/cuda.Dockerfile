# docker build -f docker/cuda.Dockerfile -t mmse:cuda . && docker run --rm --gpus all mmse:cuda
# torch 2.1 brings its CUDA libraries along, and OpenMMLab has mmcv compiled for it.
FROM nvidia/cuda:12.1.1-base-ubuntu22.04
RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        g++ make python3-dev python3-venv && rm -rf /var/lib/apt/lists/*
WORKDIR /mmse
COPY . .
ENV PIP_NO_CACHE_DIR=1
RUN make setup STACK=torch21 MMCV_WHEEL=1
ENV PATH=/mmse/.venv-torch21/bin:$PATH
CMD ["python", "tools/train.py", "configs/faster_rcnn_se_r50.py"]
