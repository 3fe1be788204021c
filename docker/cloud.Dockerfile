# The GPU machine's half: msfc_cloud on ROS 2 Jazzy. Build it from the repository's root:
#   docker build -f docker/cloud.Dockerfile -t msfc-cloud .
# PyTorch's wheel brings CUDA's libraries; the host needs the driver and the NVIDIA container toolkit.
FROM ros:jazzy-ros-base-noble
SHELL ["/bin/bash", "-o", "pipefail", "-c"]

# Versions are those of the base image's distribution.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        python3-pip python3-venv ros-jazzy-rmw-fastrtps-cpp ros-jazzy-vision-msgs \
    && rm -rf /var/lib/apt/lists/*

ARG UID=1000
RUN id -u "$UID" >/dev/null 2>&1 || useradd --create-home --uid "$UID" msfc; \
    install -d -o "$UID" /opt/msfc /models
USER $UID
WORKDIR /opt/msfc
ENV HOME=/opt/msfc

COPY --chown=$UID requirements/overrides.in requirements/base.lock ./
COPY --chown=$UID src src
COPY --chown=$UID launch launch
# The versions that the project is tested with. uv, as pip cannot leave out opencv-python, which is
# the same module as opencv-python-headless.
RUN python3 -m venv --system-site-packages .venv \
    && .venv/bin/pip install --no-cache-dir uv==0.9.* \
    && .venv/bin/uv pip install --no-cache --python .venv/bin/python --override overrides.in \
        -c base.lock './src/msfc_core[model,track]' rosbags-image colcon-common-extensions 'setuptools<80'
# The interpreter that builds is the one that the nodes run with.
RUN . /opt/ros/jazzy/setup.bash && . .venv/bin/activate \
    && python -m colcon build --base-paths src launch --packages-up-to msfc_cloud msfc \
        --cmake-args -DBUILD_TESTING=OFF "-DPython3_EXECUTABLE=$PWD/.venv/bin/python"

COPY --chown=$UID --chmod=755 docker/entrypoint.sh ./
ENTRYPOINT ["/opt/msfc/entrypoint.sh"]
CMD ["ros2", "launch", "msfc", "cloud.launch.py", "device:=cuda"]
