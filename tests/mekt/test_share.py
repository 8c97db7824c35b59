"""Who takes part in a rollout: both sides draw the same, and a share that grows takes nobody out."""

from hypothesis import given
from hypothesis import strategies as st

from mekt.share import share_for, takes_part

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", fullmatch=True)
NUMBERS = st.integers(1, 2**31 - 1)
SHARES = st.floats(0, 1)


@given(NAMES, NUMBERS, NAMES, SHARES, SHARES)
def test_a_growing_share_only_adds_devices(federation: str, number: int, device: str, one: float, other: float) -> None:
    small, large = sorted((one, other))
    assert takes_part(federation, number, device, large) or not takes_part(federation, number, device, small)


@given(NAMES, NUMBERS, NAMES)
def test_everybody_takes_part_in_the_whole_and_nobody_in_nothing(federation: str, number: int, device: str) -> None:
    assert takes_part(federation, number, device, 1.0) and not takes_part(federation, number, device, 0.0)


def test_a_share_is_about_that_many_of_a_fleet_and_others_in_the_next_rollout() -> None:
    fleet = [f"watch-{index}" for index in range(4000)]
    first = {device for device in fleet if takes_part("home", 1, device, 0.1)}
    second = {device for device in fleet if takes_part("home", 2, device, 0.1)}
    # Of 4000 at 10 % the deviation is 19, of those in both draws, 1 %, it is 6.3; this is five of them.
    assert abs(len(first) - 400) < 95 and abs(len(second) - 400) < 95 and abs(len(first & second) - 40) < 32


def test_the_draw_is_the_same_for_ever() -> None:
    """Devices in the field and the coordinator may run different versions of Mekt."""
    drawn = "".join(str(int(takes_part("home", 3, f"pi-{index}", 0.5))) for index in range(16))
    assert drawn == "1010100101001110"


@given(NAMES, NUMBERS, st.lists(NAMES, unique=True, max_size=12), st.integers(0, 12))
def test_the_least_share_for_some_of_a_fleet_draws_as_many(
    federation: str, number: int, devices: list[str], count: int
) -> None:
    share = share_for(federation, number, devices, count)

    def drawn(share: float) -> int:
        return sum(takes_part(federation, number, each, share) for each in devices)

    assert 0 < share <= 1
    if 0 < count <= len(devices):
        assert drawn(share) >= count > drawn(share - 0.01)
    else:
        assert share == 1
