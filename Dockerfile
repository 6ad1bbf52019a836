# A gateway with its CPU worker. Set GATEWAY_UPSTREAMS to use ComfyUI instances instead.
#
#   docker build -t comfygate .
#   docker run -p 8000:8000 -v comfygate:/data comfygate
#
# It listens on all addresses and so in keys mode: the first start prints the admin token. The wheel of PyAV that is
# installed here carries x264 and x265 (GPL): read docs/licences.md before you pass an image on.
FROM python:3.11-slim AS build
COPY . /source
RUN sh /source/deploy/image-steps.sh build /source /wheels
RUN sh /source/deploy/image-steps.sh install /wheels /opt/comfygate

FROM python:3.11-slim
COPY --from=build /opt/comfygate /opt/comfygate
COPY deploy/image-steps.sh /opt/comfygate/image-steps.sh
RUN useradd --system --uid 10001 --no-create-home comfygate && install -d -m 0700 -o comfygate -g comfygate /data
USER comfygate
WORKDIR /data
ENV GATEWAY_HOST=0.0.0.0 GATEWAY_AUTH=keys GATEWAY_DATA_DIR=/data PYTHONUNBUFFERED=1
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --start-period=30s CMD ["/opt/comfygate/bin/python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health/ready', timeout=3)"]
CMD ["sh", "/opt/comfygate/image-steps.sh", "serve", "/opt/comfygate"]
