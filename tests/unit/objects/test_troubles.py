from gateway.interfaces import Trouble
from gateway.objects.troubles import Troubles

AWAY, REFUSED = Trouble("EndpointConnectionError"), Trouble("PutObject: AccessDenied (HTTP 403)", is_refusal=True)


def test_the_newest_is_told():
    troubles = Troubles("s3://faces/p/")
    assert troubles.newest() is None
    troubles.note("get", AWAY)
    troubles.note("put", REFUSED)
    assert troubles.newest() is REFUSED
    troubles.note("get", AWAY)
    assert troubles.newest() is AWAY


def test_any_answer_ends_what_nobody_answered_and_its_own_kind_alone_a_refusal():
    troubles = Troubles("s3://faces/p/")
    troubles.note("put", REFUSED)
    troubles.note("get", AWAY)
    troubles.over("list")
    assert troubles.newest() is REFUSED
    troubles.over("put")
    assert troubles.newest() is None
