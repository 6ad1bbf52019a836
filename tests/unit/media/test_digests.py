from __future__ import annotations

from gateway.media import movies
from gateway.media.digests import Digests
from gateway.sniffing import MP4


def digests(path):
    found = Digests()
    with movies.open_movie(path, MP4) as container:
        for packet in container.demux():
            if packet.size:
                found.take(packet)
    return found


def test_the_same_packets_in_another_order_of_streams_have_the_same_digests(studio):
    whole = studio.video(audio=True)
    moved = studio.sound_first(whole)
    assert digests(moved).pictures() == digests(whole).pictures()
    assert digests(moved).sounds() == digests(whole).sounds() != ()


def test_other_pictures_have_another_digest_and_the_sound_keeps_its_own(studio):
    one = studio.video("one.mp4", audio=True)
    other = studio.video("other.mp4", studio.frames(12)[::-1], audio=True)
    assert digests(one).pictures() != digests(other).pictures()
    assert digests(one).sounds() == digests(other).sounds()


def test_sound_alone_can_be_taken(studio):
    found = Digests()
    with movies.open_movie(studio.video(audio=True), MP4) as container:
        for packet in container.demux():
            if packet.size:
                found.take_sound(packet)
    assert found.pictures() == Digests().pictures()
    assert found.sounds() == digests(studio.video(audio=True)).sounds()
