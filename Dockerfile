# One image for the code server (its default), the web server, the daemon and the command `aurum`.
# It holds no fleet, no address and no secret: those come when it is started. See deploy/README.md.
ARG PYTHON=python:3.11-slim-bookworm

FROM ${PYTHON} AS build
WORKDIR /build
COPY constraints constraints
# What builds the project comes from the lock, too, and stays in this stage.
RUN awk '/^[^ #]/ { take = /^setuptools==/ } take' constraints/base.txt >builder.txt \
 && python -m venv /builder \
 && /builder/bin/pip install --no-cache-dir --require-hashes -r builder.txt
RUN python -m venv --without-pip /opt/aurum \
 && /builder/bin/pip --python /opt/aurum/bin/python install --no-cache-dir --require-hashes --no-deps --only-binary :all: -r constraints/image.txt
COPY pyproject.toml README.md ./
COPY aurum_orchestration aurum_orchestration
RUN /builder/bin/pip wheel --no-index --no-deps --no-build-isolation --wheel-dir wheels . \
 && /builder/bin/pip --python /opt/aurum/bin/python install --no-index --no-deps wheels/*.whl

FROM ${PYTHON}
RUN useradd --uid 10001 --create-home aurum \
 && install --directory --owner=aurum --group=aurum /var/lib/aurum /var/lib/dagster /var/lib/dagster/storage /etc/aurum
COPY --from=build /opt/aurum /opt/aurum
ENV PATH=/opt/aurum/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    AURUM_HOME=/var/lib/aurum \
    DAGSTER_HOME=/var/lib/dagster
USER 10001
WORKDIR /var/lib/aurum
EXPOSE 3000 4000
HEALTHCHECK --interval=30s --timeout=20s --start-period=60s CMD ["dagster", "api", "grpc-health-check", "--port", "4000"]
CMD ["dagster", "api", "grpc", "--host", "0.0.0.0", "--port", "4000", "--module-name", "aurum_orchestration.definitions"]
