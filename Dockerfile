# The image of the bot: a virtual environment of its own, at the versions of constraints.txt, and nothing that only tests need.
# tests/test_house.py runs the RUN lines of the build stage in a folder of its own, so they stay plain shell with VENV as their one parameter.
FROM python:3.13-slim AS build
ENV VENV=/opt/meshwhy PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python -m venv "$VENV"
COPY pyproject.toml constraints.txt README.md LICENSE ./
RUN "$VENV/bin/pip" install --quiet --constraint constraints.txt pip
COPY bot bot
COPY checks checks
COPY handlers handlers
COPY templates templates
RUN "$VENV/bin/pip" install --quiet --constraint constraints.txt --build-constraint constraints.txt .
RUN "$VENV/bin/meshwhy" --help >/dev/null

FROM python:3.13-slim
COPY --from=build /opt/meshwhy /opt/meshwhy
# A number, so that Kubernetes can see that it is not root. The root filesystem may be read-only: state goes under the config's state_dir.
USER 10001:10001
# Large tables stand on huge pages where the node gives them on request: a sweep of a large mesh costs a tenth less.
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp GLIBC_TUNABLES=glibc.malloc.hugetlb=1
ENTRYPOINT ["/opt/meshwhy/bin/meshwhy"]
CMD ["run", "--config", "/etc/meshwhy/config.yaml"]
