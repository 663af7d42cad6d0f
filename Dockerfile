# The operator's image. Stage 1 builds the wheel and installs it with its locked dependencies; the last stage is the base
# with that installation and nothing else: no compiler, no pip, no source tree. It runs as a number, on a read-only root.
#
# Any base with python3 (3.11 or newer) and, for stage 1, its venv module will do:
#   buildah build --build-arg BASE_IMAGE=... --tag wattzoo:0.1.0 .
ARG BASE_IMAGE=python:3.12-slim-bookworm

FROM ${BASE_IMAGE} AS build
ARG PIP_CERT=
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python3 -m venv /build && python3 -m venv --without-pip /opt/wattzoo
# Dependencies before the source, so that a change of the source does not install them again.
COPY requirements/runtime.txt requirements/runtime.txt
RUN /build/bin/pip --python /opt/wattzoo/bin/python3 install --require-hashes --requirement requirements/runtime.txt
COPY pyproject.toml README.md LICENSE CHANGELOG.md ./
COPY operator operator
COPY policies policies
RUN /build/bin/pip wheel --no-deps --wheel-dir /dist . \
 && /build/bin/pip --python /opt/wattzoo/bin/python3 install --no-deps --no-index /dist/*.whl

FROM ${BASE_IMAGE}
ENV PATH=/opt/wattzoo/bin:/usr/local/bin:/usr/bin:/bin PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
COPY --from=build /opt/wattzoo /opt/wattzoo
USER 65532:65532
WORKDIR /
EXPOSE 8080 8081
ENTRYPOINT ["/opt/wattzoo/bin/wattzoo"]
CMD ["run"]
