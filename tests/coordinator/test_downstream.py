"""What devices may have of the coordinator, and no more."""

from coordinator.downstream import Downstream
from mekt.blobs import blob_ref, chunk_count
from mekt.messages import CHUNK_BYTES, Want

PROXY = bytes(2 * CHUNK_BYTES)


def want(data: bytes, *chunks: int) -> Want:
    return Want(sha256=blob_ref(data).sha256, chunks=chunks)


def test_the_proxy_set_and_the_newest_global_knowledge_are_served() -> None:
    downstream = Downstream([PROXY])
    downstream.publish({"acc": b"old"})
    downstream.publish({"acc": b"new"})
    assert downstream.knowledge == {"acc": blob_ref(b"new")}
    served = downstream.chunks("pi", want(b"new", 0), 0)
    assert served is not None and [each.data for each in served] == [b"new"]
    proxy = downstream.chunks("pi", want(PROXY, 1, 0, 7), 0)
    assert proxy is not None and [(each.index, each.count) for each in proxy] == [(1, 2), (0, 2)]
    assert chunk_count(blob_ref(PROXY)) == 2
    assert downstream.chunks("pi", want(b"old", 0), 0) is None, "it is served no more"


def test_what_waits_on_the_way_to_a_device_is_not_sent_to_it_again() -> None:
    downstream = Downstream([PROXY])
    assert len(downstream.chunks("pi", want(PROXY, 0), 0) or ()) == 1
    assert downstream.chunks("pi", want(PROXY, 0), 1) == ()
    assert len(downstream.chunks("other", want(PROXY, 0), 0) or ()) == 1
