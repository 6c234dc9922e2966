# One image for every service and for the independent Raft node: what runs is the entrypoint of the compose file.
FROM python:3.11-slim-bookworm AS build
ENV PIP_CONSTRAINT=/src/constraints.txt PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
RUN python -m venv --without-pip /opt/raftstacks
COPY pyproject.toml constraints.txt ./
# The dependencies first, as those of an empty project: a change of the sources does not fetch them again.
RUN touch README.md LICENSE \
 && pip --python /opt/raftstacks/bin/python install --only-binary :all: '.[service,independent]'
COPY . .
RUN pip --python /opt/raftstacks/bin/python install --no-deps --force-reinstall .

FROM python:3.11-slim-bookworm
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin raftstacks \
 && install --directory --owner raftstacks /data
COPY --from=build /opt/raftstacks /opt/raftstacks
COPY common_raft/service/healthy.py /opt/raftstacks/healthy.py
ENV PATH=/opt/raftstacks/bin:$PATH PYTHONUNBUFFERED=1
USER raftstacks
WORKDIR /data
