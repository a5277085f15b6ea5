# Plain features only: it builds with BuildKit, the classic builder and buildah alike.
# To pin the base, give a digest: --build-arg PYTHON_IMAGE=python@sha256:...
ARG PYTHON_IMAGE=python:3.13-slim-trixie

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /app
# The slow layer first: it changes with the lock only. The environment has no pip of its own, and
# finds the three folders by a path file, so that nothing is imported from where one stands.
COPY requirements.lock ./
RUN python -m venv --without-pip /opt/venv \
 && pip --python /opt/venv/bin/python install --no-deps --only-binary :all: --require-hashes \
      -r requirements.lock \
 && site=$(/opt/venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') \
 && echo /app > "$site/teller.pth" \
 && rm requirements.lock
COPY LICENSE ./
COPY db ./db
COPY jobs ./jobs
COPY worker ./worker
# Whatever the umask of the checkout: everyone may read the files, only root may write them.
RUN python -m compileall -q --invalidation-mode unchecked-hash /app \
 && chmod -R u=rwX,go=rX /app

FROM ${PYTHON_IMAGE}
# A named volume that is mounted on the reports starts out owned by the worker.
RUN groupadd --gid 10001 teller \
 && useradd --uid 10001 --gid teller --no-create-home --home-dir /nonexistent \
      --shell /usr/sbin/nologin teller \
 && install --directory --owner teller --group teller /var/lib/teller/reports
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
# What the fleet shows for this image, and its label.
ARG VERSION=dev
LABEL org.opencontainers.image.title="Teller" \
      org.opencontainers.image.description="A job worker whose effects happen exactly once" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}"
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONSAFEPATH=1 \
    PYTHONUNBUFFERED=1 \
    TELLER_HEALTH_HOST=0.0.0.0 \
    TELLER_REPORTS_URL=file:///var/lib/teller/reports \
    TELLER_VERSION=${VERSION}
WORKDIR /app
USER 10001:10001
EXPOSE 8089
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
  CMD ["python", "-m", "worker", "check"]
ENTRYPOINT ["python", "-m", "worker"]
CMD ["run"]
