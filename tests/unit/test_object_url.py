import pytest

from gateway.object_url import ObjectUrl, parse_object_url


def parsed(url):
    return parse_object_url(url, setting="STORAGE_URL")


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("s3://faces", ObjectUrl("faces", addressing="virtual")),
        ("s3://faces/", ObjectUrl("faces", addressing="virtual")),
        ("s3://faces/a/b/", ObjectUrl("faces", "a/b", addressing="virtual")),
        ("s3://faces/a%20b?region=eu-central-1", ObjectUrl("faces", "a b", None, "eu-central-1", "virtual")),
        (
            "s3://faces/p?endpoint=http://127.0.0.1:9000/&region=us-east-1",
            ObjectUrl("faces", "p", "http://127.0.0.1:9000", "us-east-1", "path"),
        ),
        (
            "s3://faces?endpoint=https%3A%2F%2Fs3.example.org&addressing=virtual",
            ObjectUrl("faces", "", "https://s3.example.org", None, "virtual"),
        ),
        ("s3://faces?addressing=path", ObjectUrl("faces")),
    ],
)
def test_a_place_is_read(url, place):
    assert parsed(url) == place


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "takes s3://bucket/prefix"),
        ("https://faces.example.org", "takes s3://bucket/prefix"),
        ("s3://", "no name of a bucket"),
        ("s3://Faces", "no name of a bucket"),
        ("s3://a", "no name of a bucket"),
        ("s3://a..b", "no name of a bucket"),
        ("s3://faces:9000", "no name of a bucket"),
        ("s3://faces/a//b", "prefix"),
        ("s3://faces/../b", "prefix"),
        ("s3://faces/a%2F..%2Fb", "prefix"),
        ("s3://faces/ü", "prefix"),
        ("s3://faces/" + "a" * 801, "prefix"),
        ("s3://faces?endpoint=ftp://x", "endpoint"),
        ("s3://faces?endpoint=https://x/path", "endpoint"),
        ("s3://faces?endpoint=https://key:secret@x", "endpoint"),
        ("s3://faces?region=EU", "region"),
        ("s3://faces?addressing=dns", "addressing"),
        ("s3://faces?endpoint=https://x&endpoint=https://y", "each once"),
        ("s3://faces?secret=x", "each once"),
        ("s3://faces#x", "each once"),
        ("s3://faces?endpoint", "is no URL"),
        ("s3://[", "is no URL"),
    ],
)
def test_what_is_no_place_is_refused_with_the_name_of_the_setting(url, says):
    with pytest.raises(ValueError, match=says) as refused:
        parsed(url)
    assert str(refused.value).startswith("STORAGE_URL")


@pytest.mark.parametrize("url", ["s3://AKIAKEY:verysecret@faces/p", "s3://faces?endpoint=https://AKIAKEY:verysecret@x"])
def test_credentials_are_refused_and_not_repeated(url):
    with pytest.raises(ValueError, match="STORAGE_URL") as refused:
        parsed(url)
    assert "verysecret" not in str(refused.value)
    assert "AKIAKEY" not in str(refused.value)


def test_keys_and_locations_lie_below_the_prefix():
    assert parsed("s3://faces/a/b").key("k/1") == "a/b/k/1"
    assert parsed("s3://faces").key("k/1") == "k/1"
    assert parsed("s3://faces/a/b").location("k") == "s3://faces/a/b/k"
