# Two images from one set-up: `docker build --target coordinator .` and `docker build --target edge .`
# The GPU build of torch comes from PyPI. For boards and servers without a GPU, and always on arm64:
#     docker build --build-arg PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu --target edge .
FROM python:3.11-slim AS base
ARG PIP_EXTRA_INDEX_URL
WORKDIR /opt/mekt
# The packages come before the code, so that a change of code does not download torch again.
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY mekt/__init__.py mekt/
RUN python -m pip install --quiet -c constraints.txt -e ".[edge,coordinator,wearable]"
COPY mekt mekt
COPY sensors sensors
COPY edge edge
COPY export export
COPY coordinator coordinator
RUN useradd --system --uid 10001 --home-dir /var/lib/mekt --create-home mekt
USER mekt
WORKDIR /var/lib/mekt
VOLUME /var/lib/mekt
ENTRYPOINT ["mekt"]

FROM base AS coordinator
CMD ["coordinator", "run", "--config", "/etc/mekt/federation.toml"]

FROM base AS edge
CMD ["edge", "run", "--config", "/etc/mekt/device.toml"]
