"""The handlers of assets in ``comfy_v2``: they carry values between the web and the engine, no more."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from gateway.api.bodies import BodyPace
from gateway.api.dialects.comfy_v2 import assets, single_use
from gateway.api.downloads import file_response
from gateway.api.facade import Asset, InputBlobs
from gateway.api.problems import json_response
from gateway.api.shown import lookup_id
from gateway.api.uploads import FormLimits, receive_form, receive_json
from gateway.api.window import Call
from gateway.audit import PICTURES, MediaKind

#: The field of a link's query that stands for a key; beside it stands when the link ends.
SIGNATURE: Final = "signature"
EXPIRES: Final = "expires"
_OK: Final = int(HTTPStatus.OK)
_CREATED: Final = int(HTTPStatus.CREATED)
_NO_CACHE: Final = {"Cache-Control": "no-store"}
#: Bytes per second of a line that has its time for the largest file, as other dialects have it for 1 GiB.
_SLOWEST_LINE: Final = 300_000
#: Beside the file and the tags; a form of the contract has five.
_MAX_FIELDS: Final = 16


async def post_assets(request: Request, call: Call) -> Response:
    """``POST /api/v2/assets``: a file of any kind, streamed to the disk and hashed on the way."""
    wanted = await single_use.wanted_of(request, call)
    limits, blobs = _any_file(call), InputBlobs(call.service)
    with call.creating():
        async with await receive_form(request, blobs, limits, stopping=call.service.stopping) as form:
            tags = form.repeated.get(assets.TAGS, ())
            upload = assets.read_upload(form.fields, tags, form.files, call.known.owner)
            async with single_use.claimed(call, wanted) as claim:
                minted = await call.service.assets.upload(upload, claim=claim)
            form.keep()
    status = _CREATED if minted.is_new_blob else _OK
    return _told(request, call, minted.asset, status, created_new=minted.is_new_blob)


async def post_from_hash(request: Request, call: Call) -> Response:
    """``POST /api/v2/assets/from-hash``: the same without the bytes, where their owner has sent them before."""
    body = await receive_json(request, call.window.form_limits, stopping=call.service.stopping)
    wanted = assets.read_from_hash(body)
    minted = await call.service.assets.from_hash(
        call.known.owner,
        wanted.blob_hash,
        file_path=wanted.file_path,
        tags=wanted.tags,
        expires_in_seconds=wanted.expires_in_seconds,
    )
    status = _CREATED if minted.is_new_asset else _OK
    return _told(request, call, minted.asset, status, created_new=False)


async def head_by_hash(request: Request, call: Call) -> Response:
    """``HEAD /api/v2/assets/by-hash/{hash}``: whether ``from-hash`` would find it."""
    await call.service.assets.by_hash(call.known.owner, assets.lookup_hash(request.path_params["hash"]))
    return Response(headers=_NO_CACHE)


async def get_asset(request: Request, call: Call) -> Response:
    """``GET /api/v2/assets/{id}``."""
    return _told(request, call, await call.service.assets.get(_id(request), call.known.owner))


async def delete_asset(request: Request, call: Call) -> Response:
    """``DELETE /api/v2/assets/{id}``."""
    await call.service.assets.delete(_id(request), call.known.owner)
    return Response(status_code=int(HTTPStatus.NO_CONTENT), headers=_NO_CACHE)


async def get_content(request: Request, call: Call) -> Response:
    """``GET /api/v2/assets/{id}/content``: for its owner, and for whoever has a link that was signed."""
    asset_id, query = _id(request), request.query_params
    if SIGNATURE in query:
        asset = await call.service.assets.opened(asset_id, query.get(EXPIRES, ""), query[SIGNATURE])
    else:
        asset = await call.service.assets.get(asset_id, call.known.owner)
    left_seconds = 0.0 if asset.expires_at is None else asset.expires_at - call.service.clock.now()
    return file_response(
        request,
        blobs=call.service.blobs,
        blob_hash=asset.blob,
        size_bytes=asset.size_bytes,
        content_type=assets.served_type(asset),
        filename=assets.saved_name(asset),
        last_modified=asset.created_at,
        max_age_seconds=max(0, int(left_seconds)),
    )


def _id(request: Request) -> str:
    """The asset that a path names; what is no id takes the way of one that leads to nothing."""
    return lookup_id(request.path_params["id"])


def _any_file(call: Call) -> FormLimits:
    """One file of any kind, as large as a body may be."""
    settings = call.window.settings
    largest = int(settings.max_upload)
    return FormLimits(
        max_body_bytes=largest,
        max_json_bytes=int(settings.max_json),
        caps=dict.fromkeys((*PICTURES, MediaKind.FILE), largest),
        max_files=1,
        max_fields=_MAX_FIELDS,
        repeatable={assets.TAGS: assets.MAX_TAGS},
        pace=BodyPace(deadline_seconds=max(BodyPace().deadline_seconds, largest / _SLOWEST_LINE)),
    )


def _told(
    request: Request, call: Call, asset: Asset, status: int = _OK, *, created_new: bool | None = None
) -> Response:
    link = call.service.assets.link(asset.id, asset.expires_at)
    base = call.window.link_base(request)
    return json_response(assets.asset_body(asset, link, base, created_new=created_new), status)
