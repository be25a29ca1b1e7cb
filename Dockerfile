# docker build -t hlbt .
# docker run --rm -v hlbt-data:/hlbt/data_cache -v hlbt-reports:/hlbt/reports -v hlbt-compiled:/hlbt/compiled hlbt demo
FROM python:3.13-slim
WORKDIR /opt/hlbt
COPY requirements.lock pyproject.toml README.md LICENSE ./
COPY engine engine
COPY research research
# Complete locks, nothing to decide: see the Makefile.
RUN python -m pip install --no-cache-dir --no-deps --require-hashes --only-binary :all: --requirement requirements.lock
RUN python -m pip install --no-cache-dir --no-deps --no-build-isolation . && python -m pip check
# A user of its own, who can write where the work is and nowhere else.
RUN mkdir -p /hlbt/data_cache /hlbt/reports /hlbt/compiled && chown -R 10001:10001 /hlbt
USER 10001:10001
WORKDIR /hlbt
# Compiled kernels are kept from one container to the next, and so are the locks and journals of live accounts.
ENV HOME=/hlbt NUMBA_CACHE_DIR=/hlbt/compiled HLBT_STATE=/hlbt/reports/state
VOLUME ["/hlbt/data_cache", "/hlbt/reports", "/hlbt/compiled"]
ENTRYPOINT ["hlbt"]
CMD ["--help"]
