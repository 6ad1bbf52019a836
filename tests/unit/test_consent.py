from __future__ import annotations

import pytest

from gateway.consent import Attestation, by_field, by_header, refuse_without
from gateway.errors import ConsentRequiredError, InvalidInputError


@pytest.mark.parametrize("yes", [True, 1, "true", "TRUE", " yes ", "on", "1"])
def test_yes_is_said_in_several_ways(yes):
    assert by_field(yes) is Attestation.FIELD
    if isinstance(yes, str):
        assert by_header(yes) is Attestation.HEADER


@pytest.mark.parametrize("nothing", [None, "", "  "])
def test_nothing_says_nothing(nothing):
    assert by_field(nothing) is None
    assert by_header(nothing) is None


@pytest.mark.parametrize("other", [False, 0, 2, "false", "no", "agreed", [], [True], {}, 1.5])
def test_no_and_rubbish_are_refused_by_name(other):
    with pytest.raises(InvalidInputError) as refusal:
        by_field(other)
    assert refusal.value.field == "consent"
    if isinstance(other, str):
        with pytest.raises(InvalidInputError) as refusal:
            by_header(other)
        assert refusal.value.field == "X-Consent"


def test_where_it_is_required_and_missing_both_ways_are_named():
    with pytest.raises(ConsentRequiredError) as refusal:
        refuse_without(None, is_required=True)
    assert "'consent'" in refusal.value.message
    assert "X-Consent: true" in refusal.value.message
    refuse_without(None, is_required=False)
    refuse_without(Attestation.HEADER, is_required=True)
